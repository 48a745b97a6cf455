-- Finds the lane with work that was tried longest ago, among the lanes of some channels.
-- channels: bigint[]; sending: boolean. Row: conversation id, tenant id.
-- Indexes: conversation_due, conversation_send_due.
SELECT l.id, ch.tenant_id FROM channel ch
 CROSS JOIN LATERAL (
   (SELECT c.id, c.due_at AS at FROM conversation c
     WHERE NOT %(sending)s AND c.channel_id = ch.id AND c.due_at IS NOT NULL ORDER BY c.due_at LIMIT 1)
   UNION ALL
   (SELECT c.id, c.send_due_at FROM conversation c
     WHERE %(sending)s AND c.channel_id = ch.id AND c.send_due_at IS NOT NULL ORDER BY c.send_due_at LIMIT 1)) l
 WHERE ch.id = ANY (%(channels)s::bigint[]) AND ch.active
 ORDER BY l.at LIMIT 1
