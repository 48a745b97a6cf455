-- Locks the lanes of a batch in id order, without waiting, and puts their ids into app.locked, a
-- setting of the transaction that store_messages reads. A lane that another transaction has locked
-- is left out: its items are written with the next batch.
-- items: json list of rows.LaneRow. Returns one row, ignored. Indexes: conversation_once,
-- alias_once, primary key.
WITH wanted AS MATERIALIZED (
  SELECT DISTINCT l.id
    FROM (SELECT i.channel_id,
                 coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                              AND a.of = 'chat' AND a.value = i.chat), i.chat) AS chat,
                 coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                              AND a.of = 'user' AND a.value = i."user"), i."user") AS "user"
            FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, chat text, "user" text)) n
   CROSS JOIN LATERAL (SELECT c.id FROM conversation c
                        WHERE c.channel_id = n.channel_id AND c.chat = n.chat AND c."user" = n."user" LIMIT 1) l),
locked AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (ARRAY(SELECT id FROM wanted))
   ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED)
SELECT set_config('app.locked', coalesce(string_agg(id::text, ','), ''), true) FROM locked
