-- The second half of commit_turns.sql, for lanes that the transaction holds.
WITH items AS MATERIALIZED (
  SELECT i.*, c.last_reply_sequence FROM json_to_recordset(%(items)s::json) AS i(
         id bigint, channel_id bigint, message_id bigint, replies json) JOIN conversation c ON c.id = i.id),
said AS MATERIALIZED (
  SELECT i.id, i.channel_id, i.message_id, r.value ->> 'author' AS author, (r.value -> 'body')::jsonb AS body,
         i.last_reply_sequence + row_number() OVER (PARTITION BY i.id ORDER BY r.ordinality) AS sequence
    FROM items i CROSS JOIN LATERAL json_array_elements(i.replies) WITH ORDINALITY AS r),
replies AS (
  INSERT INTO reply (conversation_id, channel_id, sequence, message_id, author, body)
  SELECT id, channel_id, sequence, message_id, author, body FROM said ORDER BY id, sequence)
UPDATE conversation c
   SET last_reply_sequence = c.last_reply_sequence + s.added,
       send_due_at = lane_send_due_at(c.next_reply_sequence, c.last_reply_sequence, c.send_due_at,
                                      now() + interval '3 s')
  FROM (SELECT id, count(*) AS added FROM said GROUP BY id) s WHERE c.id = s.id
