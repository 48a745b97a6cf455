-- Replies that are being sent in a process's name. claim. Rows: conversation id, reply id. Index: reply_claimed.
SELECT conversation_id, id FROM reply WHERE status = 'sending' AND claimed_by = %(claim)s
