-- Finds lanes that senders may have in hand, latest first. A lane that a sender or a sweeper took
-- is due within 10 s; one that has been due for longer is held.
-- per_channel, all_in: most lanes per channel and in all. Rows: conversation id.
-- Index: conversation_send_due.
SELECT l.id FROM channel ch
 CROSS JOIN LATERAL (SELECT c.id FROM conversation c
                      WHERE c.channel_id = ch.id
                        AND c.send_due_at BETWEEN now() - interval '10 s' AND now() + interval '10 s'
                      ORDER BY c.send_due_at DESC LIMIT %(per_channel)s) l
 WHERE ch.active LIMIT %(all_in)s
