-- Reads what a worker needs for the next turn of each lane (conversation): the lane, its next
-- message (the head), its state, its contact, and the choices that the message may mean.
-- conversation_state.offered is the number of the open question: the last reply with choices of the
-- last turn. A typed message may answer it if it was stored after the question began to be sent,
-- and if nothing else was said between the two. A replayed copy counts from when its original came.
-- ids: bigint[]. Rows: see verdicts.Head. Indexes: primary keys, message_sequence_once,
-- reply_platform_id, reply_sequence_once.
SELECT c.id, c.channel_id, coalesce(ch.tenant_id, 0), c.chat, c."user", c.is_group, c.mode, c.paused_at IS NOT NULL OR c.blocked AS stopped, c.suspect,
       c.next_sequence, c.epoch, c.attempts,
       extract(epoch FROM c.not_before - now())::float AS wait, extract(epoch FROM c.wait_until - clock_timestamp())::float AS release_in,
       m.id, m.identity, m.kind, m.status, m.starts_turn, m.text, m.payload, m.sender, m.platform_id, m.late,
       s.state, k.name, k.username, k.phone, k.email, k.language, c.address,
       coalesce(o.body, q.body), -- of the reply whose button was pressed, if its choice travelled as a digest; or of the open question
       q.platform_id, s.offered IS NOT NULL
  FROM unnest(%(ids)s::bigint[]) AS i(id)
 CROSS JOIN LATERAL (SELECT * FROM conversation l WHERE l.id = i.id LIMIT 1) c
  LEFT JOIN LATERAL (SELECT * FROM message h WHERE h.conversation_id = c.id AND h.sequence = c.next_sequence LIMIT 1) m ON true
  LEFT JOIN LATERAL (SELECT * FROM conversation_state t WHERE t.conversation_id = c.id LIMIT 1) s ON true
  LEFT JOIN LATERAL (SELECT * FROM contact p WHERE p.id = c.contact_id LIMIT 1) k ON true
  LEFT JOIN LATERAL (SELECT r.body FROM reply r
                      WHERE m.kind = 'button' AND left(m.payload ->> 'payload', 1) = '~' AND r.channel_id = c.channel_id
                        AND r.platform_id <> '' AND r.platform_id = m.payload ->> 'target'
                        AND (SELECT d.chat FROM conversation d WHERE d.id = r.conversation_id) = c.chat
                      ORDER BY r.id + 0 DESC LIMIT 1) o ON true
  LEFT JOIN LATERAL (SELECT r.body, r.platform_id FROM reply r
                      CROSS JOIN LATERAL (SELECT CASE WHEN m.replay_of IS NULL THEN m.received_at
                          ELSE (SELECT h.received_at FROM message h WHERE h.id = m.replay_of AND h.replay_of IS NULL) END) w(came_at)
                      WHERE r.conversation_id = c.id AND r.sequence = s.offered
                        AND (m.kind = 'button' OR m.kind = 'message' AND NOT m.late
                             AND r.status IN ('sending', 'sent', 'unknown') AND r.intent_at <= w.came_at
                             AND NOT EXISTS (SELECT FROM reply n WHERE n.conversation_id = c.id AND n.sequence > s.offered
                                                AND n.message_id IS DISTINCT FROM r.message_id AND n.intent_at <= w.came_at OFFSET 0))
                      LIMIT 1) q ON true
  LEFT JOIN LATERAL (SELECT tenant_id FROM channel n WHERE n.id = c.channel_id LIMIT 1) ch ON true
