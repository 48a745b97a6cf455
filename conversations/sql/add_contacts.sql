-- Inserts people not seen before, in key order, before any row is locked.
-- items: json list of {channel_id, sender_user, name, username, phone, email, language}. No rows.
-- Index: contact_once.
INSERT INTO contact (channel_id, "user", name, username, phone, email, language)
SELECT DISTINCT ON (i.channel_id, i.sender_user COLLATE "C")
       i.channel_id, i.sender_user, coalesce(i.name, ''), coalesce(i.username, ''), coalesce(i.phone, ''),
       coalesce(i.email, ''), coalesce(i.language, '')
  FROM json_to_recordset(%(items)s::json)
       AS i(channel_id bigint, sender_user text, name text, username text, phone text, email text, language text)
 WHERE NOT EXISTS (SELECT FROM contact k WHERE k.channel_id = i.channel_id AND k."user" = i.sender_user)
 ORDER BY i.channel_id, i.sender_user COLLATE "C"
ON CONFLICT DO NOTHING
