-- Locks the lane of a timer before it fires: the next statement sees its counters as they are. id. Rows: conversation id.
-- Indexes: primary keys.
SELECT c.id FROM timer t JOIN conversation c ON c.id = t.conversation_id WHERE t.id = %(id)s FOR NO KEY UPDATE OF c
