-- Lanes whose head has been pending for longer than the one argument, an interval. Rows: id.
-- Indexes: conversation_due, conversation_for_staff, message_sequence_once.
WITH busy AS MATERIALIZED (
  SELECT id, next_sequence FROM conversation WHERE due_at IS NOT NULL
  UNION
  SELECT id, next_sequence FROM conversation WHERE blocked OR mode = 'human' OR paused_at IS NOT NULL OR attempts > 0)
SELECT busy.id FROM busy
 CROSS JOIN LATERAL (SELECT FROM message m WHERE m.conversation_id = busy.id AND m.sequence = busy.next_sequence
                        AND m.status = 'pending' AND m.received_at < now() - %s LIMIT 1) old
