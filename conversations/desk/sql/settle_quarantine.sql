-- Settles a quarantined item. item: id; staff, reason.
-- Rows: the item's id. Index: quarantine primary key.
WITH settled AS (
  UPDATE quarantine SET settled_at = now() WHERE id = %(item)s AND settled_at IS NULL RETURNING id, channel_id),
noted AS (
  INSERT INTO audit (staff_id, verb, tenant_id, subject, reason)
  SELECT %(staff)s, 'settle_quarantine', (SELECT tenant_id FROM channel WHERE id = settled.channel_id), 'quarantine ' || id, %(reason)s
    FROM settled)
SELECT id FROM settled
