-- Locks the lanes of the replies that statuses name, in id order, without waiting, and puts their
-- ids into app.locked, a setting of the transaction that apply_statuses reads.
-- items: json list of {ord, channel_id, platform_id, status, error}. Returns one row, ignored.
-- Index: reply_platform_id.
WITH locked AS MATERIALIZED (
  SELECT c.id FROM conversation c
   WHERE c.id = ANY (ARRAY(
         SELECT r.conversation_id
           FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, platform_id text)
          CROSS JOIN LATERAL (SELECT conversation_id FROM reply
                               WHERE channel_id = i.channel_id AND platform_id = i.platform_id AND platform_id <> '' OFFSET 0) r))
   ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED)
SELECT set_config('app.locked', coalesce(string_agg(id::text, ','), ''), true) FROM locked
