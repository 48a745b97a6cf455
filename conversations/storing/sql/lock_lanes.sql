-- Locks the lanes of a batch in id order, without waiting, and puts their ids into app.locked, a
-- setting of the transaction that store_messages reads. A lane that another transaction has locked
-- is left out: its items are written with the next batch.
-- An id that cannot pass to another person may have a lane of its own and lead to another one, because
-- the platform said later that both are one person's. Then both are locked, or neither counts, and
-- join_lanes has what was not handled go on in front of the batch's messages. Until nothing is left
-- behind, neither counts. In a group both lanes are in the same chat.
-- items: json list of rows.LaneRow. Returns one row, ignored. Indexes: conversation_once,
-- alias_once, primary key.
WITH wanted AS MATERIALIZED (
  SELECT DISTINCT l.id, b.id AS left_behind
    FROM (SELECT i.channel_id, i.chat = i."user" AS is_private,
                 CASE WHEN i.may_pass IS NOT TRUE THEN i."user" END AS stated,
                 coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                              AND a.of = 'chat' AND a.value = i.chat), i.chat) AS chat,
                 coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                              AND a.of = 'user' AND a.value = i."user"), i."user") AS "user"
            FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, chat text, "user" text, may_pass boolean)) n
   CROSS JOIN LATERAL (SELECT c.id, c.contact_id FROM conversation c
                        WHERE c.channel_id = n.channel_id AND c.chat = n.chat AND c."user" = n."user" LIMIT 1) l
    LEFT JOIN LATERAL (SELECT c.id FROM conversation c
                        WHERE n.stated <> n."user" AND c.channel_id = n.channel_id AND c."user" = n.stated
                          AND c.chat = CASE WHEN n.is_private THEN n.stated ELSE n.chat END
                          AND c.contact_id <> l.contact_id LIMIT 1) b ON true),
locked AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (ARRAY(SELECT id FROM wanted UNION SELECT left_behind FROM wanted))
   ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED),
apart AS MATERIALIZED (
  SELECT w.id, w.left_behind FROM wanted w
   WHERE w.left_behind IS NOT NULL
     AND CASE WHEN w.left_behind IN (SELECT id FROM locked) AND w.id IN (SELECT id FROM locked)
              THEN NOT join_lanes(w.left_behind, w.id) ELSE true END)
SELECT set_config('app.locked', coalesce(string_agg(k.id::text, ','), ''), true)
  FROM locked k
 WHERE k.id <> ALL (ARRAY(SELECT id FROM apart UNION ALL SELECT left_behind FROM apart))
