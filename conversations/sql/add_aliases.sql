-- Remembers other ids of a person or chat, so that the lane survives when the platform changes its id.
-- items: json list of {channel_id, of, value, known_as}. No rows. Index: alias_once.
INSERT INTO alias (channel_id, of, value, known_as)
SELECT DISTINCT ON (i.channel_id, i.of, i.value COLLATE "C")
       i.channel_id, i.of, i.value,
       coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = i.of AND a.value = i.known_as), i.known_as)
  FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, of text, value text, known_as text)
 WHERE i.value <> i.known_as
 ORDER BY i.channel_id, i.of, i.value COLLATE "C"
ON CONFLICT DO NOTHING
