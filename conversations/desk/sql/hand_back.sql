-- Gives the lane back to the bot: the first pending message is next, and due now. Messages that were
-- settled meanwhile and holes are passed.
-- No arguments. Indexes: conversation primary key, message_sequence_once.
UPDATE conversation c
   SET mode = 'bot', epoch = epoch + 1, attempts = 0, not_before = NULL, blocked = false, next_sequence = first.sequence,
       due_at = lane_due_at('bot', paused_at, false, first.sequence, last_sequence, NULL, wait_until, now())
  FROM (SELECT l.id, coalesce((SELECT min(m.sequence) FROM message m
                                WHERE m.conversation_id = l.id AND m.sequence >= l.next_sequence AND m.status = 'pending'),
                              l.last_sequence + 1) AS sequence
          FROM conversation l WHERE l.id = nullif(current_setting('app.locked', true), '')::bigint) first
 WHERE c.id = first.id
