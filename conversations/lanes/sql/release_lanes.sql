-- Releases what waits in the lanes that this transaction holds, as far as its order is known.
-- ids: bigint[]; null: all of app.locked. Rows: conversation id, numbers given. Index: message_waiting.
SELECT l.id, release_waiting(l.id)
  FROM unnest(coalesce(%(ids)s::bigint[], string_to_array(current_setting('app.locked', true), ',')::bigint[])) AS l(id)
 WHERE EXISTS (SELECT FROM message w WHERE w.conversation_id = l.id AND w.sequence IS NULL OFFSET 0)
 ORDER BY l.id
