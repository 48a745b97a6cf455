-- Cancels a reply that no sender has started, or that the platform refused.
-- reply: id; statuses: text[], what it may be; note. Index: reply primary key.
WITH done AS (
  UPDATE reply r SET status = 'cancelled', settled_at = now(), error = concat_ws('; ', nullif(r.error, ''), %(note)s::text)
   WHERE r.id = %(reply)s AND r.status = ANY (%(statuses)s::text[])
     AND r.conversation_id = nullif(current_setting('app.locked', true), '')::bigint
  RETURNING r.conversation_id)
SELECT set_config('app.locked', coalesce((SELECT conversation_id::text FROM done), ''), true)
