-- Locks the lanes of the replies that statuses name, in id order, without waiting, and puts their
-- ids into app.locked, a setting of the transaction that apply_statuses reads.
-- A failure locks the lane of a reply that is being sent, too: so the result, which is written in this lane,
-- finds the failure, or the failure finds the result.
-- items: json list of {ord, channel_id, platform_id, key, status, error}. Returns one row, ignored.
-- Indexes: reply_platform_id, reply_in_doubt_key, reply_claimed.
WITH locked AS MATERIALIZED (
  SELECT c.id FROM conversation c
   WHERE c.id = ANY (ARRAY(
         SELECT r.conversation_id
           FROM json_to_recordset(%(items)s::json) AS i(channel_id bigint, platform_id text, key uuid, status text)
          CROSS JOIN LATERAL (SELECT conversation_id FROM reply
                               WHERE channel_id = i.channel_id AND platform_id = i.platform_id AND platform_id <> ''
                               UNION ALL SELECT conversation_id FROM reply
                               WHERE channel_id = i.channel_id AND key = i.key
                                AND settled_at IS NULL AND claimed_by IS NULL AND intent_at IS NOT NULL
                               UNION ALL SELECT conversation_id FROM reply r
                               WHERE i.status = 'failed' AND r.status = 'sending' AND channel_id = i.channel_id AND r.key = i.key OFFSET 0) r))
   ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED)
SELECT set_config('app.locked', coalesce(string_agg(id::text, ','), ''), true) FROM locked
