-- Reads a checkout by the identity of its message, with what the bot is told of its person.
-- identity: bytea. Rows: see checkouts.Asked; none if it is not stored, or is no checkout.
-- Indexes: message_identity_once, primary keys.
SELECT c.channel_id, c.chat, c."user", c.is_group, coalesce(m.payload, '{}'), extract(epoch FROM clock_timestamp() - m.received_at)::float,
       k.name, k.username, k.phone, k.email, k.language
  FROM (SELECT * FROM message h WHERE h.identity = %(identity)s LIMIT 1) m
 CROSS JOIN LATERAL (SELECT * FROM conversation l WHERE l.id = m.conversation_id LIMIT 1) c
  LEFT JOIN LATERAL (SELECT * FROM contact p WHERE p.id = c.contact_id LIMIT 1) k ON true
 WHERE m.kind = 'checkout'
