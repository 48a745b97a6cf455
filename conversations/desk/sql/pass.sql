-- Passes over the head (the lane's next message): it is skipped or parked, and the message after it
-- is due.
-- status: skipped, parked; note; statuses: text[], what the head may be. Indexes: conversation
-- primary key, message_sequence_once.
WITH head AS (
  UPDATE message m
     SET status = CASE WHEN m.status = 'missing' THEN m.status ELSE %(status)s END, settled_at = now(),
         note = concat_ws('; ', nullif(m.note, ''), nullif(%(note)s::text, ''))
    FROM conversation c
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
     AND m.conversation_id = c.id AND m.sequence = c.next_sequence AND m.status = ANY (%(statuses)s::text[])
  RETURNING m.conversation_id),
lane AS (
  UPDATE conversation c
     SET next_sequence = next_sequence + 1, epoch = epoch + 1, attempts = 0, not_before = NULL, blocked = false,
         due_at = lane_due_at(mode, paused_at, false, next_sequence + 1, last_sequence, NULL, wait_until, now())
    FROM head WHERE c.id = head.conversation_id
  RETURNING c.id)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true)
