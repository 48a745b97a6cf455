-- Locks the lane of a timer, so that the next statement sees its current counters.
-- id: of the timer. Rows: conversation id. Indexes: primary keys.
SELECT c.id FROM timer t JOIN conversation c ON c.id = t.conversation_id WHERE t.id = %(id)s FOR NO KEY UPDATE OF c
