-- Finds the replies that a process has claimed and not settled.
-- claim: its incarnation. Rows: conversation id, reply id. Index: reply_claimed.
SELECT conversation_id, id FROM reply WHERE status = 'sending' AND claimed_by = %(claim)s
