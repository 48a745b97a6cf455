-- Makes the head (the lane's next message) due now, with all its attempts; a blocked lane is
-- unblocked.
-- No arguments. Indexes: conversation primary key, message_sequence_once.
WITH head AS (
  UPDATE message m SET status = 'pending', settled_at = NULL, note = ''
    FROM conversation c
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
     AND m.conversation_id = c.id AND m.sequence = c.next_sequence AND m.status IN ('pending', 'parked')
  RETURNING m.conversation_id),
lane AS (
  UPDATE conversation c
     SET epoch = epoch + 1, attempts = 0, not_before = NULL, blocked = false,
         due_at = lane_due_at(mode, paused_at, false, next_sequence, last_sequence, NULL, wait_until, now())
    FROM head WHERE c.id = head.conversation_id
  RETURNING c.id)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true)
