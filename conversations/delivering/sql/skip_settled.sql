-- Moves the head of a lane's (conversation's) replies past settled ones (cancelled drafts), never
-- past others: they would not be sent.
-- id: of the lane; sequence: the first number that may be unsettled. No rows.
-- Index: reply_sequence_once.
UPDATE conversation c
   SET next_reply_sequence = least(%(sequence)s, c.last_reply_sequence + 1),
       send_due_at = CASE WHEN %(sequence)s <= c.last_reply_sequence THEN greatest(now(), c.phone_until) END
 WHERE c.id = %(id)s AND c.next_reply_sequence <= %(sequence)s
   AND NOT EXISTS (SELECT FROM reply r WHERE r.conversation_id = c.id AND r.sequence >= c.next_reply_sequence
                      AND r.sequence < %(sequence)s AND r.status IN ('pending', 'sending', 'unknown'))
