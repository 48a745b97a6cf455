-- Marks files that their tenant keeps no longer, before their bytes are deleted: the oldest of each channel, in
-- any order, so that no channel's wait for those of another. A file of a reply stays for a day at least: it may
-- not be sent yet. So does one that was refused: a part of it may be on its way. An upload that is not sent yet
-- is left to mark_orphans: its message may be on its way.
-- days: for tenants that say nothing else; most: rows of each channel; all_in: most rows.
-- Rows: id, channel id, attempts. Indexes: media_old, media_pkey.
WITH old AS MATERIALIZED (
  SELECT o.id, o.created_at
    FROM (SELECT ch.id, coalesce(t.media_days, %(days)s) AS days FROM channel ch JOIN tenant t ON t.id = ch.tenant_id
           ORDER BY random()) ch
   CROSS JOIN LATERAL (SELECT m.id, m.created_at FROM media m
                        WHERE m.channel_id = ch.id AND m.status IN ('stored', 'refused') AND m.conversation_id IS NOT NULL
                          AND m.created_at < now() - make_interval(days => ch.days)
                          AND (m.status = 'stored' AND m.message_id IS NOT NULL OR m.created_at < now() - interval '1 day')
                        ORDER BY m.created_at LIMIT %(most)s) o
   LIMIT %(all_in)s),
marked AS (
  UPDATE media m SET status = 'refused', error = 'it is kept no longer'
    FROM old o
   WHERE m.id = o.id AND m.id = ANY (ARRAY(SELECT id FROM old)) AND m.created_at = o.created_at AND m.status <> 'deleted'
  RETURNING m.id, m.channel_id, m.attempts)
SELECT id, channel_id, attempts FROM marked ORDER BY random()
