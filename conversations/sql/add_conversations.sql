-- Inserts lanes not seen before, in key order, before any row is locked.
-- items: json list of {channel_id, chat, "user", sender_user, is_group, aliased}. No rows.
-- Indexes: conversation_once, contact_once, alias_once.
INSERT INTO conversation (channel_id, chat, "user", contact_id, is_group)
SELECT DISTINCT ON (n.channel_id, n.chat COLLATE "C", n."user" COLLATE "C")
       n.channel_id, n.chat, n."user",
       CASE WHEN n."user" = '' THEN NULL
            ELSE (SELECT k.id FROM contact k WHERE k.channel_id = n.channel_id AND k."user" = n.sender_user) END,
       coalesce(n.is_group, false)
  FROM (SELECT i.channel_id, i.sender_user, i.is_group,
               CASE WHEN i.aliased THEN coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                    AND a.of = 'chat' AND a.value = i.chat), i.chat) ELSE i.chat END AS chat,
               CASE WHEN i.aliased THEN coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                    AND a.of = 'user' AND a.value = i."user"), i."user") ELSE i."user" END AS "user"
          FROM json_to_recordset(%(items)s::json)
               AS i(channel_id bigint, chat text, "user" text, sender_user text, is_group boolean, aliased boolean)) n
 WHERE NOT EXISTS (SELECT FROM conversation c WHERE c.channel_id = n.channel_id AND c.chat = n.chat AND c."user" = n."user")
 ORDER BY n.channel_id, n.chat COLLATE "C", n."user" COLLATE "C"
ON CONFLICT DO NOTHING
