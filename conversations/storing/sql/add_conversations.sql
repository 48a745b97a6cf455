-- Inserts lanes that are not in the table: in key order and before any row is locked, so that
-- transactions that insert the same lanes cannot deadlock.
-- items: json list of rows.LaneRow. Returns no rows. Indexes: conversation_once, contact_once,
-- alias_once.
INSERT INTO conversation (channel_id, chat, "user", contact_id, is_group)
SELECT DISTINCT ON (n.channel_id, n.chat COLLATE "C", n."user" COLLATE "C")
       n.channel_id, n.chat, n."user",
       CASE WHEN n."user" = '' THEN NULL
            ELSE (SELECT k.id FROM contact k WHERE k.channel_id = n.channel_id AND k."user" = n."user") END,
       coalesce(n.is_group, false)
  FROM (SELECT i.channel_id, i.is_group,
               coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                            AND a.of = 'chat' AND a.value = i.chat), i.chat) AS chat,
               coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                            AND a.of = 'user' AND a.value = i."user"), i."user") AS "user"
          FROM json_to_recordset(%(items)s::json)
               AS i(channel_id bigint, chat text, "user" text, is_group boolean)) n
 WHERE NOT EXISTS (SELECT FROM conversation c WHERE c.channel_id = n.channel_id AND c.chat = n.chat AND c."user" = n."user"
                      OFFSET 0)
 ORDER BY n.channel_id, n.chat COLLATE "C", n."user" COLLATE "C"
ON CONFLICT DO NOTHING
