-- Reads the next replies (8 at most) of each lane (conversation), in order, with what a send needs.
-- An address's "to" that has passed to another person meanwhile, as phone numbers do, becomes null.
-- ids: bigint[]. Rows: see results.Next; a lane without replies has one row, whose reply is null.
-- Indexes: primary keys, reply_sequence_once, alias_once.
SELECT c.id, c.channel_id, c.chat, c."user", c.is_group,
       CASE WHEN (SELECT a.known_as FROM alias a WHERE a.channel_id = c.channel_id AND a.of = 'user'
                     AND a.value = c.address ->> 'to') <> c."user" THEN c.address || '{"to": null}' ELSE c.address END,
       reply_refusal(r.id, r.author, r.body, c.opted_out_at, c.no_marketing_since, c.unreachable_since, c.window_until),
       c.cancelled_through,
       extract(epoch FROM now() - c.last_sent_at)::float,
       r.id, r.sequence, r.author, r.status, r.attempts, r.intent_number, extract(epoch FROM r.not_before - now())::float,
       coalesce(r.valid_until < now(), false), r.key, r.body, r.claimed_by, extract(epoch FROM now() - r.created_at)::float,
       m.platform_id, m.identity, extract(epoch FROM c.phone_until - now())::float
  FROM unnest(%(ids)s::bigint[]) AS i(id)
 CROSS JOIN LATERAL (SELECT * FROM conversation l WHERE l.id = i.id LIMIT 1) c
  LEFT JOIN LATERAL (SELECT * FROM reply p WHERE p.conversation_id = c.id AND p.sequence >= c.next_reply_sequence
                      ORDER BY p.sequence LIMIT 8) r ON true
  LEFT JOIN LATERAL (SELECT h.platform_id, h.identity FROM message h WHERE h.id = r.message_id LIMIT 1) m ON true
 ORDER BY c.id, r.sequence
