-- Finds, in each of some paused channels, a lane with work to try. For handling, one with a message
-- whose turn has not failed since the pause began, nor before it; else, as for sending, the one that
-- was tried longest ago. For sending, only a lane whose next reply may start at once but for the pause and
-- its retry time: no reply is in flight, and none waits for a status.
-- channels: bigint[]; since: when the pause began; sending, untried (only lanes that have not
-- failed): booleans; many: the limit. Rows: conversation id, tenant id.
-- Indexes: conversation_due, conversation_send_due, turn_of_conversation, reply_sequence_once.
SELECT l.id, ch.tenant_id FROM channel ch
 CROSS JOIN LATERAL (
   SELECT * FROM (
     (SELECT c.id, 1 AS class, c.due_at AS at FROM conversation c
       WHERE NOT %(sending)s AND c.channel_id = ch.id AND c.due_at IS NOT NULL AND c.attempts = 0 AND c.next_sequence <= c.last_sequence
         AND coalesce((SELECT t.ended_at FROM turn t WHERE t.conversation_id = c.id ORDER BY t.id DESC LIMIT 1) < %(since)s, true)
       ORDER BY c.due_at LIMIT 1)
     UNION ALL
     (SELECT c.id, 2, c.due_at FROM conversation c
       WHERE NOT %(sending)s AND NOT %(untried)s AND c.channel_id = ch.id AND c.due_at IS NOT NULL ORDER BY c.due_at LIMIT 1)
     UNION ALL
     (SELECT c.id, 2, c.send_due_at FROM conversation c
       CROSS JOIN LATERAL (SELECT status, not_before FROM reply WHERE conversation_id = c.id AND sequence >= c.next_reply_sequence
                              AND status IN ('pending', 'sending', 'unknown') ORDER BY sequence LIMIT 1) r
       WHERE %(sending)s AND c.channel_id = ch.id AND c.send_due_at IS NOT NULL AND coalesce(c.phone_until <= now(), true)
         AND (r.status = 'pending' OR r.not_before <= now())
       ORDER BY c.send_due_at LIMIT 1)) found
    ORDER BY class, at LIMIT 1) l
 WHERE ch.id = ANY (%(channels)s::bigint[]) AND ch.active
 ORDER BY l.class, l.at LIMIT %(many)s
