-- Locks, in id order, the lanes whose replies a dead sender left in sending, before they are
-- settled.
-- claim: the sender's incarnation. Rows: conversation id. Indexes: reply_claimed, primary key.
SELECT c.id FROM conversation c
 WHERE c.id = ANY (ARRAY(SELECT conversation_id FROM reply WHERE status = 'sending' AND claimed_by = %(claim)s))
 ORDER BY c.id FOR NO KEY UPDATE
