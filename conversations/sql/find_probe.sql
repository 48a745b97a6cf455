-- The lane of some channels that was tried longest ago and has something to do.
-- channels: bigint[]; sending: boolean. Row: conversation id, tenant id. Indexes: conversation_due, conversation_send_due.
SELECT l.id, ch.tenant_id FROM channel ch
 CROSS JOIN LATERAL (SELECT c.id, CASE WHEN %(sending)s THEN c.send_due_at ELSE c.due_at END AS at FROM conversation c
                      WHERE c.channel_id = ch.id AND CASE WHEN %(sending)s THEN c.send_due_at ELSE c.due_at END IS NOT NULL
                      ORDER BY 2 LIMIT 1) l
 WHERE ch.id = ANY (%(channels)s::bigint[]) AND ch.active
 ORDER BY l.at LIMIT 1
