-- Settles the replies that a dead sender left in sending: their outcome is unknown.
--   cancelled  a bot's reply that a take-over cancelled meanwhile
--   unknown    policy ask, and the key is too old to be sent again; where the platform has keys,
--              the key becomes its platform id, so that a later status finds it
--   parked     no attempt is left
--   pending    else: sent again with the same key
-- claim: the sender's incarnation; attempts: most per reply; key_life: json object platform ->
-- seconds (null: for ever). Rows: conversation id. Index: reply_claimed.
WITH left_over AS MATERIALIZED (
  SELECT r.id, r.key, c.id AS conversation_id, l.life,
         CASE WHEN r.author = 'bot' AND r.sequence <= c.cancelled_through THEN 'cancelled'
              WHEN coalesce(ch.options ->> 'unknown_policy', 'resend') = 'ask'
               AND r.created_at + make_interval(secs => l.life) < now() THEN 'unknown'
              WHEN r.attempts >= %(attempts)s THEN 'parked'
              ELSE 'pending' END AS status
    FROM reply r
   CROSS JOIN LATERAL (SELECT * FROM conversation WHERE id = r.conversation_id LIMIT 1) c
    JOIN channel ch ON ch.id = c.channel_id
   CROSS JOIN LATERAL (SELECT coalesce(nullif(ch.options ->> 'key_life_s', '')::float,
                                       (%(key_life)s::jsonb ->> ch.platform)::float, 1e9) AS life) l
   WHERE r.status = 'sending' AND r.claimed_by = %(claim)s),
settled AS (
  UPDATE reply r
     SET status = l.status, claimed_by = NULL, not_before = NULL, error = 'its sender died while sending',
         platform_id = CASE WHEN l.status = 'unknown' AND l.life > 0 THEN r.key::text ELSE r.platform_id END,
         settled_at = CASE WHEN l.status IN ('cancelled', 'parked') THEN now() END
    FROM left_over l
   WHERE r.id = l.id AND r.id = ANY (ARRAY(SELECT id FROM left_over)) AND r.status = 'sending' AND r.claimed_by = %(claim)s
  RETURNING r.conversation_id, r.status)
UPDATE conversation c SET send_due_at = CASE WHEN s.status = 'unknown' THEN NULL ELSE now() END, last_sent_at = now()
  FROM settled s WHERE c.id = s.conversation_id AND c.id = ANY (ARRAY(SELECT conversation_id FROM settled))
RETURNING c.id
