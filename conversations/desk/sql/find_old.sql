-- Finds lanes whose head has been pending for longer than an age, among 20,000 lanes with work at
-- most (twice: due ones, and those that wait for a person or a retry). A larger limit makes the
-- list slower.
-- channels: bigint[]; age: interval. Rows: id. Indexes: conversation_due, conversation_for_staff,
-- message_sequence_once.
WITH busy AS MATERIALIZED (
  (SELECT c.id, c.next_sequence FROM unnest(%s::bigint[]) AS ch(id)
    CROSS JOIN LATERAL (SELECT id, next_sequence FROM conversation WHERE channel_id = ch.id AND due_at IS NOT NULL LIMIT 20000) c
    LIMIT 20000)
  UNION
  (SELECT id, next_sequence FROM conversation
    WHERE (blocked OR mode = 'human' OR paused_at IS NOT NULL OR attempts > 0) AND channel_id = ANY (%s::bigint[])
      AND next_sequence <= last_sequence LIMIT 20000))
SELECT busy.id FROM busy
 CROSS JOIN LATERAL (SELECT FROM message m WHERE m.conversation_id = busy.id AND m.sequence = busy.next_sequence
                        AND m.status = 'pending' AND m.received_at < now() - %s LIMIT 1) old
