-- Settles an unknown reply as a person decided: it arrived, or it is sent again with the same key.
-- A bot's reply from before a take-over becomes a draft instead.
-- reply: id; sent: boolean. Indexes: reply primary key, conversation primary key.
WITH decided AS (
  UPDATE reply r
     SET status = CASE WHEN %(sent)s THEN 'sent'
                       WHEN r.author = 'bot' AND r.sequence <= c.cancelled_through THEN 'cancelled' ELSE 'pending' END,
         settled_at = CASE WHEN %(sent)s OR (r.author = 'bot' AND r.sequence <= c.cancelled_through) THEN now() END,
         attempts = CASE WHEN %(sent)s THEN r.attempts ELSE 0 END, not_before = NULL
    FROM conversation c
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
     AND r.id = %(reply)s AND r.conversation_id = c.id AND r.status = 'unknown'
     AND (%(sent)s OR r.sequence >= c.next_reply_sequence)
  RETURNING r.conversation_id)
SELECT set_config('app.locked', coalesce((SELECT conversation_id::text FROM decided), ''), true)
