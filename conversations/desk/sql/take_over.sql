-- Lets a person answer from now on: replies of the bot that have not started become drafts, and
-- none of them starts later.
-- No arguments. Indexes: conversation primary key, reply_sequence_once.
WITH lane AS (
  UPDATE conversation c
     SET mode = 'human', epoch = epoch + 1, due_at = NULL, cancelled_through = last_reply_sequence
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
  RETURNING c.id, c.next_reply_sequence),
drafts AS (
  UPDATE reply r SET status = 'cancelled', settled_at = now()
    FROM lane
   WHERE r.conversation_id = lane.id AND r.sequence >= lane.next_reply_sequence
     AND r.author = 'bot' AND r.status = 'pending')
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true)
