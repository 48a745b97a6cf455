-- Reads the last messages and replies of a lane (conversation), oldest first.
-- id: the lane; before: only messages with a lower number; n: rows at most.
-- Rows: by (user, bot, system, person), text, at.
-- Indexes: message_sequence_once, reply_sequence_once.
SELECT by, text, at FROM (
  (SELECT 'user' AS by, m.text, m.received_at AS at, m.sequence, 0 AS side FROM message m
    WHERE m.conversation_id = %(id)s AND m.sequence < %(before)s AND m.kind IN ('message', 'button')
    ORDER BY m.sequence DESC LIMIT %(n)s)
  UNION ALL
  (SELECT r.author, r.body ->> 'text', r.created_at, r.sequence, 1 FROM reply r
    WHERE r.conversation_id = %(id)s AND r.status <> 'cancelled' ORDER BY r.sequence DESC LIMIT %(n)s)
  ORDER BY at DESC, side DESC, sequence DESC LIMIT %(n)s) recent
ORDER BY at, side, sequence
