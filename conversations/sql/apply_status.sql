-- Keeps what the platform said and joins it to its reply, upgrade-only; a status that names an unknown reply settles it.
-- channel_id, platform_id, status, error. No rows. Indexes: status_once, reply_platform_id.
WITH kept AS (
  INSERT INTO status (channel_id, platform_id, status, error)
  VALUES (%(channel_id)s, %(platform_id)s, %(status)s, %(error)s)
  ON CONFLICT (channel_id, platform_id, status) DO NOTHING),
joined AS (
  UPDATE reply r
     SET delivered = CASE WHEN %(status)s = 'read' THEN 'read'
                          WHEN %(status)s = 'delivered' AND r.delivered = 'none' THEN 'delivered' ELSE r.delivered END,
         settled_at = coalesce(r.settled_at, now()),
         status = CASE WHEN %(status)s = 'failed' AND r.status IN ('sent', 'unknown') THEN 'failed'
                       WHEN r.status = 'unknown' THEN 'sent' ELSE r.status END,
         error = CASE WHEN %(status)s = 'failed' THEN %(error)s ELSE r.error END
   WHERE r.channel_id = %(channel_id)s AND r.platform_id = %(platform_id)s AND r.platform_id <> ''
     AND r.status IN ('sent', 'unknown', 'failed')
   RETURNING r.conversation_id)
UPDATE conversation c SET send_due_at = now()
  FROM joined j WHERE c.id = j.conversation_id AND c.next_reply_sequence <= c.last_reply_sequence
