-- Gives waiting messages their numbers, as far as their order is known, in lanes that this
-- transaction has locked.
-- ids: bigint[]; null: all of app.locked. Rows: conversation id, how many were numbered.
-- Index: message_waiting.
SELECT l.id, release_waiting(l.id)
  FROM unnest(coalesce(%(ids)s::bigint[], string_to_array(current_setting('app.locked', true), ',')::bigint[])) AS l(id)
 WHERE EXISTS (SELECT FROM message w WHERE w.conversation_id = l.id AND w.sequence IS NULL OFFSET 0)
 ORDER BY l.id
