-- Remembers ids that may pass from one person to another, such as phone numbers, and whose they are.
-- known_as is the lasting id that came with one; or the id itself, if it came alone.
--   An id that came alone, and that nobody has, is claimable: the first lasting id that comes with it
-- is the same person's. Once claimed, it says nothing about who somebody is: it moves to whoever
-- states it last, so that two people never become one. The unique key decides between processes that
-- store one new person under two ids: the second finds what the first has committed.
--   An id that leads where it should is not written, nor what only messages say that were stored before: a
-- repeat brings back nobody's former ids. Both inserts are in key order. A number that moves is no longer
-- the phone of whoever had it.
-- items: json list of rows.AliasRow, each id once, with the identities of the messages that say it. Returns no rows.
-- Indexes: alias_once, contact_once, conversation_once, message_identity_once.
WITH items AS MATERIALIZED (
  SELECT i.*,
         coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = i.of AND a.value = i.known_as),
                  CASE WHEN i.of = 'user' AND EXISTS (SELECT FROM contact k WHERE k.channel_id = i.channel_id AND k."user" = i.known_as OFFSET 0)
                         OR i.of = 'chat' AND EXISTS (SELECT FROM conversation c WHERE c.channel_id = i.channel_id AND c.chat = i.known_as OFFSET 0)
                       THEN i.known_as END) AS root
    FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, of text, value text, known_as text, identities text[])),
wanted AS MATERIALIZED (
  SELECT i.*, a.known_as AS led_to FROM items i
    LEFT JOIN LATERAL (SELECT n.known_as, n.claimable FROM alias n
                        WHERE n.channel_id = i.channel_id AND n.of = i.of AND n.value = i.value LIMIT 1) a ON true
   WHERE (a.known_as IS NULL OR i.value <> i.known_as AND (a.claimable OR a.known_as IS DISTINCT FROM i.root))
     AND EXISTS (SELECT FROM unnest(i.identities) AS s(identity)
                  WHERE NOT EXISTS (SELECT FROM message m WHERE m.identity = decode(s.identity, 'hex') OFFSET 0))),
written AS (
  INSERT INTO alias AS a (channel_id, of, value, known_as, claimable)
  SELECT channel_id, of, value, coalesce(root, known_as), value = known_as FROM wanted ORDER BY channel_id, of, value COLLATE "C"
  ON CONFLICT (channel_id, of, value) DO UPDATE
     SET known_as = CASE WHEN a.claimable AND (SELECT w.root IS NULL FROM wanted w WHERE w.channel_id = a.channel_id AND w.of = a.of
                                                  AND w.value = a.value) THEN a.known_as ELSE excluded.known_as END,
         claimable = false
   WHERE NOT excluded.claimable
  RETURNING channel_id, of, value, known_as),
phones AS (
  UPDATE contact SET phone = ''
   WHERE id = ANY (ARRAY(
         SELECT k.id FROM wanted w JOIN written n USING (channel_id, of, value)
          CROSS JOIN LATERAL (SELECT p.id FROM contact p WHERE p.channel_id = w.channel_id AND p."user" = w.led_to AND p.phone = w.value LIMIT 1) k
          WHERE w.of = 'user' AND w.led_to <> n.known_as)))
INSERT INTO alias (channel_id, of, value, known_as)
SELECT w.channel_id, w.of, w.known_as, n.known_as
  FROM written n JOIN wanted w USING (channel_id, of, value)
 WHERE w.root IS NULL AND n.known_as <> w.known_as
 ORDER BY w.channel_id, w.of, w.known_as COLLATE "C"
ON CONFLICT DO NOTHING
