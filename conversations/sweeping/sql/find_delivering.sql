-- Lanes that senders may have in hand, the latest first: what they begin, and what is swept, is due within 10 s; what is long
-- overdue is held back.
-- per_channel, all_in: at most so many. Rows: conversation id. Index: conversation_send_due.
SELECT l.id FROM channel ch
 CROSS JOIN LATERAL (SELECT c.id FROM conversation c
                      WHERE c.channel_id = ch.id
                        AND c.send_due_at BETWEEN now() - interval '10 s' AND now() + interval '10 s'
                      ORDER BY c.send_due_at DESC LIMIT %(per_channel)s) l
 WHERE ch.active LIMIT %(all_in)s
