-- Finds the replies that a process has marked as being sent by it, without a result yet.
-- claim: the process's incarnation (its id since its start).
-- Rows: conversation id, reply id. Index: reply_claimed.
SELECT conversation_id, id FROM reply WHERE status = 'sending' AND claimed_by = %(claim)s
