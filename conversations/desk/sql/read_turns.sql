-- Reads the newest turns of a conversation. conversation: id; limit. Rows: turns, newest first.
-- The row comparison leaves the planner no other index than turn_of_conversation, whatever the
-- statistics say.
SELECT * FROM turn
 WHERE (conversation_id, id) >= (%(conversation)s::bigint, 0) AND (conversation_id, id) < (%(conversation)s::bigint + 1, 0)
 ORDER BY conversation_id DESC, id DESC LIMIT %(limit)s
