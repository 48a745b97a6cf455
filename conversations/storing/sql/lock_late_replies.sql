-- Locks the lanes of the turns that late replies name, in id order, without waiting, and puts their
-- ids into app.locked, a setting of the transaction that store_late_replies reads.
-- items: json list of late_replies.LateItem. Returns one row, ignored. Index: primary keys.
WITH locked AS MATERIALIZED (
  SELECT c.id FROM conversation c
   WHERE c.id = ANY (ARRAY(
         SELECT m.conversation_id FROM message m
          WHERE m.id = ANY (ARRAY(SELECT message_id FROM json_to_recordset(%(items)s::json) AS i(message_id bigint)))))
   ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED)
SELECT set_config('app.locked', coalesce(string_agg(id::text, ','), ''), true) FROM locked
