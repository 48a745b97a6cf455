-- Moves next_reply_sequence to the first unsettled reply, and sets when a sender should look at the
-- lane again.
-- No arguments. Indexes: conversation primary key, reply_sequence_once.
WITH lane AS (
  SELECT c.id, c.next_reply_sequence, c.last_reply_sequence, c.send_due_at, c.phone_until FROM conversation c
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint),
head AS (
  SELECT r.sequence, r.status, r.not_before FROM lane
   CROSS JOIN LATERAL (SELECT * FROM reply WHERE conversation_id = lane.id AND sequence >= lane.next_reply_sequence
                          AND status IN ('pending', 'sending', 'unknown') ORDER BY sequence LIMIT 1) r)
UPDATE conversation c
   SET next_reply_sequence = coalesce((SELECT sequence FROM head), lane.last_reply_sequence + 1),
       send_due_at = CASE (SELECT status FROM head)
                          WHEN 'pending' THEN greatest((SELECT not_before FROM head), now(), lane.phone_until)
                          WHEN 'unknown' THEN (SELECT not_before FROM head)
                          WHEN 'sending' THEN lane.send_due_at END
  FROM lane WHERE c.id = lane.id
