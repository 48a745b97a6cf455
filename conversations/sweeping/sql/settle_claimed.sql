-- Settles the replies that a dead sender left in sending: their outcome is unknown.
--   sent, failed  the platform said so in a status with the reply's key; the next reply waits until a sent
--              one is delivered, as in commit_sends
--   cancelled  a bot's reply that a take-over cancelled meanwhile
--   unknown    the key is too old to be sent again, and either a status may still name it (until
--              not_before, see results.STATUS_SECONDS), or the policy is ask; where the platform has
--              keys, the key becomes its platform id, so that a later status finds it
--   parked     no attempt is left
--   pending    else: sent again with the same key
-- claim: the sender's incarnation; attempts: most per reply; key_life: json object platform ->
-- seconds (null: for ever); reporting: platforms whose statuses have our key; status_wait: seconds
-- from the intent. Rows: conversation id. Indexes: reply_claimed, status_key.
WITH left_over AS MATERIALIZED (
  SELECT r.id, c.id AS conversation_id, l.life, f.*, w.until,
         CASE WHEN f.arrived OR f.failed THEN NULL
              WHEN f.said_id <> '' THEN coalesce(c.phone_until, now() + make_interval(secs => r.phone_wait))
              ELSE c.phone_until END AS phone_until,
         CASE WHEN f.said_id <> '' THEN CASE WHEN f.failed AND NOT f.arrived THEN 'failed' ELSE 'sent' END
              WHEN w.until > now() THEN 'unknown'
              WHEN r.author = 'bot' AND r.sequence <= c.cancelled_through THEN 'cancelled'
              WHEN coalesce(ch.options ->> 'unknown_policy', 'resend') = 'ask'
               AND r.created_at + make_interval(secs => l.life) < now() THEN 'unknown'
              WHEN r.attempts >= %(attempts)s THEN 'parked'
              ELSE 'pending' END AS status
    FROM reply r
   CROSS JOIN LATERAL (SELECT * FROM conversation WHERE id = r.conversation_id LIMIT 1) c
    JOIN channel ch ON ch.id = c.channel_id
   CROSS JOIN LATERAL (SELECT coalesce(nullif(ch.options ->> 'key_life_s', '')::float,
                                       (%(key_life)s::jsonb ->> ch.platform)::float, 1e9) AS life) l
   CROSS JOIN LATERAL (SELECT CASE WHEN ch.platform = ANY (%(reporting)s::text[]) AND r.created_at + make_interval(secs => l.life) < now()
                                   THEN r.intent_at + make_interval(secs => %(status_wait)s) END AS until) w
   CROSS JOIN LATERAL (
         SELECT max(platform_id) AS said_id, bool_or(status = 'read') AS read, bool_or(status IN ('delivered', 'read')) AS arrived,
                bool_or(status = 'failed') AS failed, max(error) FILTER (WHERE status = 'failed') AS later_error
           FROM status WHERE channel_id = r.channel_id AND key = r.key) f
   WHERE r.status = 'sending' AND r.claimed_by = %(claim)s),
settled AS (
  UPDATE reply r
     SET status = l.status, claimed_by = NULL, not_before = CASE WHEN l.status = 'unknown' AND l.until > now() THEN l.until END,
         error = CASE l.status WHEN 'failed' THEN l.later_error WHEN 'sent' THEN r.error ELSE 'its sender died while sending' END,
         platform_id = CASE WHEN l.status = 'unknown' AND l.life > 0 THEN r.key::text ELSE coalesce(l.said_id, r.platform_id) END,
         delivered = CASE WHEN l.read THEN 'read' WHEN l.arrived THEN 'delivered' ELSE r.delivered END,
         settled_at = CASE WHEN l.status NOT IN ('pending', 'unknown') THEN now() END
    FROM left_over l
   WHERE r.id = l.id AND r.id = ANY (ARRAY(SELECT id FROM left_over)) AND r.status = 'sending' AND r.claimed_by = %(claim)s
  RETURNING r.conversation_id, r.status, r.not_before, l.phone_until)
UPDATE conversation c
   SET phone_until = s.phone_until, last_sent_at = now(),
       send_due_at = CASE WHEN s.status = 'unknown' THEN s.not_before ELSE greatest(now(), s.phone_until) END
  FROM settled s WHERE c.id = s.conversation_id AND c.id = ANY (ARRAY(SELECT conversation_id FROM settled))
RETURNING c.id
