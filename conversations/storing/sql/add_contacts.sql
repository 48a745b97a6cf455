-- Inserts people that are not in the table: in key order and before any row is locked, so that
-- transactions that insert the same people cannot deadlock. A number that leads to somebody else is
-- nobody's phone.
-- items: json list of rows.ContactRow. Returns no rows. Indexes: contact_once, alias_once.
WITH items AS (
  SELECT i.*, coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = 'user'
                           AND a.value = i.sender_user), i.sender_user) AS known_as
    FROM json_to_recordset(%(items)s::json)
         AS i(channel_id bigint, sender_user text, name text, username text, phone text, email text, language text))
INSERT INTO contact (channel_id, "user", name, username, phone, email, language)
SELECT DISTINCT ON (i.channel_id, i.known_as COLLATE "C")
       i.channel_id, i.known_as, coalesce(i.name, ''), coalesce(i.username, ''),
       CASE WHEN (SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = 'user' AND a.value = i.phone) <> i.known_as
            THEN '' ELSE coalesce(i.phone, '') END,
       coalesce(i.email, ''), coalesce(i.language, '')
  FROM items i
 WHERE NOT EXISTS (SELECT FROM contact k WHERE k.channel_id = i.channel_id AND k."user" = i.known_as OFFSET 0)
 ORDER BY i.channel_id, i.known_as COLLATE "C"
ON CONFLICT DO NOTHING
