-- Updates name, username, phone, e-mail and language of contacts where a message that this transaction
-- has stored brings a new value. A contact that another transaction has locked is left out, and updated
-- with the person's next message. A number that leads to somebody else is nobody's phone.
-- items: json list of rows.ContactRow with identity, receipt_id and entry of the message. Rows: channel
-- and user of contacts left out. Indexes: contact_once, alias_once, message_identity_once.
WITH fresh AS (
  SELECT DISTINCT ON (i.channel_id, i.sender_user COLLATE "C") i.*,
         coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id AND a.of = 'user'
                      AND a.value = i.sender_user), i.sender_user) AS known_as
    FROM ROWS FROM (json_to_recordset(%(items)s::json)
         AS (channel_id bigint, sender_user text, name text, username text, phone text, email text, language text,
             identity text, receipt_id bigint, entry smallint))
         WITH ORDINALITY AS i(channel_id, sender_user, name, username, phone, email, language, identity, receipt_id, entry, ord)
   WHERE EXISTS (SELECT FROM message m WHERE m.identity = decode(i.identity, 'hex') AND m.receipt_id = i.receipt_id
                    AND m.entry = i.entry OFFSET 0)
   ORDER BY i.channel_id, i.sender_user COLLATE "C", i.ord DESC),
wanted AS MATERIALIZED (
  SELECT DISTINCT ON (k.id) k.id, f.channel_id, f.sender_user,
         coalesce(nullif(f.name, ''), k.name) AS name, coalesce(nullif(f.username, ''), k.username) AS username,
         coalesce(n.phone, k.phone) AS phone, coalesce(nullif(f.email, ''), k.email) AS email,
         coalesce(nullif(f.language, ''), k.language) AS language
    FROM fresh f
   CROSS JOIN LATERAL (SELECT CASE WHEN (SELECT a.known_as FROM alias a WHERE a.channel_id = f.channel_id AND a.of = 'user'
                                            AND a.value = f.phone) <> f.known_as THEN NULL ELSE nullif(f.phone, '') END AS phone) n
   CROSS JOIN LATERAL (SELECT * FROM contact p WHERE p.channel_id = f.channel_id AND p."user" = f.known_as LIMIT 1) k
   WHERE (k.name, k.username, k.phone, k.email, k.language) IS DISTINCT FROM
         (coalesce(nullif(f.name, ''), k.name), coalesce(nullif(f.username, ''), k.username),
          coalesce(n.phone, k.phone), coalesce(nullif(f.email, ''), k.email),
          coalesce(nullif(f.language, ''), k.language))
   ORDER BY k.id, f.ord DESC),
locked AS MATERIALIZED (
  SELECT k.id FROM contact k WHERE k.id = ANY (ARRAY(SELECT id FROM wanted)) ORDER BY k.id FOR NO KEY UPDATE SKIP LOCKED),
changed AS (
  UPDATE contact k SET name = w.name, username = w.username, phone = w.phone, email = w.email, language = w.language
    FROM wanted w JOIN locked l USING (id) WHERE k.id = w.id AND k.id = ANY (ARRAY(SELECT id FROM locked)))
SELECT w.channel_id, w.sender_user FROM wanted w WHERE NOT EXISTS (SELECT FROM locked l WHERE l.id = w.id)
