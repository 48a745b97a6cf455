-- Lanes that senders may have in hand, the latest first: what they begin, and what is swept, is due within 10 s.
-- most: at most so many of each channel, and of all. Rows: conversation id. Index: conversation_send_due.
SELECT l.id FROM channel ch
 CROSS JOIN LATERAL (SELECT c.id FROM conversation c
                      WHERE c.channel_id = ch.id AND c.send_due_at <= now() + interval '10 s'
                      ORDER BY c.send_due_at DESC LIMIT %(most)s) l
 WHERE ch.active LIMIT %(most)s
