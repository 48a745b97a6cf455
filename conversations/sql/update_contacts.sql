-- Brings names, phone and language up to date where the webhook says something new; a busy row waits for the
-- person's next message.
-- items: as in add_contacts. No rows. Index: contact_once.
WITH fresh AS (
  SELECT DISTINCT ON (i.channel_id, i.sender_user COLLATE "C") i.*
    FROM ROWS FROM (json_to_recordset(%(items)s::json)
         AS (channel_id bigint, sender_user text, name text, username text, phone text, email text, language text))
         WITH ORDINALITY AS i(channel_id, sender_user, name, username, phone, email, language, ord)
   ORDER BY i.channel_id, i.sender_user COLLATE "C", i.ord DESC),
changed AS (
  SELECT k.id, coalesce(nullif(f.name, ''), k.name) AS name, coalesce(nullif(f.username, ''), k.username) AS username,
         coalesce(nullif(f.phone, ''), k.phone) AS phone, coalesce(nullif(f.email, ''), k.email) AS email,
         coalesce(nullif(f.language, ''), k.language) AS language
    FROM fresh f JOIN contact k ON k.channel_id = f.channel_id AND k."user" = f.sender_user
   WHERE (k.name, k.username, k.phone, k.email, k.language) IS DISTINCT FROM
         (coalesce(nullif(f.name, ''), k.name), coalesce(nullif(f.username, ''), k.username),
          coalesce(nullif(f.phone, ''), k.phone), coalesce(nullif(f.email, ''), k.email),
          coalesce(nullif(f.language, ''), k.language))
   ORDER BY k.id FOR NO KEY UPDATE OF k SKIP LOCKED)
UPDATE contact k SET name = c.name, username = c.username, phone = c.phone, email = c.email, language = c.language
  FROM changed c WHERE k.id = c.id
