-- Locks the lanes of replies that a dead sender left in sending, in id order, before they are settled.
-- claim. Rows: conversation id. Indexes: reply_claimed, primary key.
SELECT c.id FROM conversation c
 WHERE c.id = ANY (ARRAY(SELECT conversation_id FROM reply WHERE status = 'sending' AND claimed_by = %(claim)s))
 ORDER BY c.id FOR NO KEY UPDATE
