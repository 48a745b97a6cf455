-- Remembers other ids of a person or chat, so that the lane stays the same when the platform
-- changes an id. Both ids of an item lead to one root. It is the root of known_as, or known_as
-- itself if a contact or conversation has it; else the same of value; else known_as.
-- items: json list of {channel_id, of, value, known_as}; of: user or chat. Returns no rows.
-- Indexes: alias_once, contact_once, conversation_once.
WITH items AS (
  SELECT i.*, (SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = i.of AND a.value = i.known_as) AS root_of_known,
         (SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = i.of AND a.value = i.value) AS root_of_value,
         CASE WHEN i.of = 'user' THEN EXISTS (SELECT FROM contact k WHERE k.channel_id = i.channel_id AND k."user" = i.known_as OFFSET 0)
              ELSE EXISTS (SELECT FROM conversation c WHERE c.channel_id = i.channel_id AND c.chat = i.known_as OFFSET 0)
              END AS known_is_there,
         CASE WHEN i.of = 'user' THEN EXISTS (SELECT FROM contact k WHERE k.channel_id = i.channel_id AND k."user" = i.value OFFSET 0)
              ELSE EXISTS (SELECT FROM conversation c WHERE c.channel_id = i.channel_id AND c.chat = i.value OFFSET 0)
              END AS value_is_there
    FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, of text, value text, known_as text)),
rooted AS (
  SELECT channel_id, of, value, known_as,
         coalesce(root_of_known, CASE WHEN known_is_there THEN known_as END, root_of_value,
                  CASE WHEN value_is_there THEN value END, known_as) AS root
    FROM items)
INSERT INTO alias (channel_id, of, value, known_as)
SELECT DISTINCT ON (r.channel_id, r.of, n.value COLLATE "C") r.channel_id, r.of, n.value, r.root
  FROM rooted r CROSS JOIN LATERAL (VALUES (r.value), (r.known_as)) AS n(value)
 WHERE n.value <> r.root
 ORDER BY r.channel_id, r.of, n.value COLLATE "C"
ON CONFLICT DO NOTHING
