-- Replies that a dead sender left in sending: their outcome is unknown. With a key that lives, or under policy resend, they
-- are pending again with the same key; under policy ask they are unknown; a cancelled bot's reply is cancelled.
-- claim; key_life: json object platform -> seconds (null: for ever). Rows: conversation id. Index: reply_claimed.
WITH left_over AS (
  UPDATE reply r
     SET claimed_by = NULL, not_before = NULL, error = 'its sender died while sending',
         status = CASE WHEN r.author = 'bot' AND r.sequence <= c.cancelled_through THEN 'cancelled'
                       WHEN coalesce(ch.options ->> 'unknown_policy', 'resend') = 'ask'
                        AND r.created_at + make_interval(secs => coalesce((ch.options ->> 'key_life_s')::float,
                            (%(key_life)s::jsonb ->> ch.platform)::float, 1e9)) < now() THEN 'unknown'
                       ELSE 'pending' END,
         settled_at = CASE WHEN r.author = 'bot' AND r.sequence <= c.cancelled_through THEN now() END
    FROM conversation c, channel ch
   WHERE r.status = 'sending' AND r.claimed_by = %(claim)s AND c.id = r.conversation_id AND ch.id = c.channel_id
   RETURNING r.conversation_id, r.status)
UPDATE conversation c SET send_due_at = CASE WHEN l.status = 'unknown' THEN NULL ELSE now() END, last_sent_at = now()
  FROM left_over l WHERE c.id = l.conversation_id
RETURNING c.id
