-- Reads what a worker needs for the next turn of each lane (conversation): the lane, its next
-- message (the head), its state, its contact.
-- ids: bigint[]. Rows: see verdicts.Head. Indexes: primary keys, message_sequence_once,
-- reply_platform_id.
SELECT c.id, c.channel_id, coalesce(ch.tenant_id, 0), c.chat, c."user", c.is_group, c.mode, c.paused_at IS NOT NULL OR c.blocked AS stopped, c.suspect,
       c.next_sequence, c.epoch, c.attempts,
       extract(epoch FROM c.not_before - now())::float AS wait, extract(epoch FROM c.wait_until - clock_timestamp())::float AS release_in,
       m.id, m.identity, m.kind, m.status, m.starts_turn, m.text, m.payload, m.sender, m.platform_id, m.late,
       s.state, k.name, k.username, k.phone, k.email, k.language, c.address,
       o.body -- of the reply whose button was pressed, if its choice travelled as a digest
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
  LEFT JOIN LATERAL (SELECT tenant_id FROM channel n WHERE n.id = c.channel_id LIMIT 1) ch ON true
