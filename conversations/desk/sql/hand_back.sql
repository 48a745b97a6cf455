-- The bot answers again. What came meanwhile is skipped or stays pending; what staff put back into the lane
-- (replay_of) stays, and so does all that came after it; what came after the page was shown was answered by nobody.
-- skip: boolean; seen_last: the newest number on the page; note. Indexes: conversation primary key, message_sequence_once.
WITH lane AS (
  SELECT c.id, c.next_sequence, c.last_sequence FROM conversation c
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint),
kept AS (
  SELECT coalesce((SELECT min(m.sequence) FROM message m
                    WHERE m.conversation_id = lane.id AND m.sequence >= lane.next_sequence AND m.status = 'pending'
                      AND (NOT %(skip)s OR m.replay_of IS NOT NULL OR m.sequence > %(seen_last)s)), lane.last_sequence + 1) AS sequence
    FROM lane),
skipped AS (
  UPDATE message m SET status = 'skipped', settled_at = now(), note = %(note)s
    FROM lane, kept
   WHERE m.conversation_id = lane.id AND m.sequence >= lane.next_sequence AND m.sequence < kept.sequence
     AND m.status = 'pending'),
back AS (
  UPDATE conversation c
     SET mode = 'bot', epoch = epoch + 1, attempts = 0, not_before = NULL, blocked = false, next_sequence = kept.sequence,
         due_at = lane_due_at('bot', paused_at, false, kept.sequence, c.last_sequence, NULL, wait_until, now())
    FROM lane, kept WHERE c.id = lane.id
  RETURNING c.id)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM back), ''), true)
