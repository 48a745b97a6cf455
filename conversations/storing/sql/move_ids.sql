-- Makes ids lead to one person or chat, because the platform says that they are one: one that got
-- another number, a group that got another id. The first that is known already says to whom. A number
-- is no longer the phone of whoever else had it. A message that was stored before moves nothing again.
-- channel_id; of: user or chat; ids: text[], the old ones, then the new ones; claimable: the last one
-- is a number whose new lasting id the platform did not say; identity: of the message. Returns no rows.
-- Indexes: alias_once, contact_once, conversation_once, message_identity_once.
WITH ids AS MATERIALIZED (
  SELECT i.value, i.place, a.known_as AS led_to, a.claimable,
         coalesce(a.known_as,
                  CASE WHEN %(of)s = 'user' AND EXISTS (SELECT FROM contact k WHERE k.channel_id = %(channel_id)s AND k."user" = i.value OFFSET 0)
                         OR %(of)s = 'chat' AND EXISTS (SELECT FROM conversation c WHERE c.channel_id = %(channel_id)s AND c.chat = i.value OFFSET 0)
                       THEN i.value END) AS root
    FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS i(value, place)
    LEFT JOIN LATERAL (SELECT n.known_as, n.claimable FROM alias n
                        WHERE n.channel_id = %(channel_id)s AND n.of = %(of)s AND n.value = i.value LIMIT 1) a ON true
   WHERE NOT EXISTS (SELECT FROM message m WHERE m.identity = decode(%(identity)s, 'hex') OFFSET 0)),
root AS MATERIALIZED (
  SELECT coalesce((SELECT root FROM ids WHERE root IS NOT NULL ORDER BY place LIMIT 1), (%(ids)s::text[])[1]) AS known_as),
phones AS (
  UPDATE contact SET phone = ''
   WHERE id = ANY (ARRAY(
         SELECT k.id FROM ids i CROSS JOIN root r
          CROSS JOIN LATERAL (SELECT p.id FROM contact p WHERE p.channel_id = %(channel_id)s AND p."user" = i.led_to AND p.phone = i.value LIMIT 1) k
          WHERE %(of)s = 'user' AND i.led_to <> r.known_as)))
INSERT INTO alias AS a (channel_id, of, value, known_as, claimable)
SELECT %(channel_id)s, %(of)s, i.value, r.known_as, %(claimable)s AND i.place = cardinality(%(ids)s::text[])
  FROM ids i CROSS JOIN root r
 WHERE i.value <> r.known_as OR i.claimable
 ORDER BY i.value COLLATE "C"
ON CONFLICT (channel_id, of, value) DO UPDATE
   SET known_as = excluded.known_as, claimable = excluded.claimable AND (a.claimable OR a.known_as <> excluded.known_as)
 WHERE a.known_as <> excluded.known_as OR a.claimable
