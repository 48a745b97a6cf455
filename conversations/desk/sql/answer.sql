-- Appends a person's replies, behind all other replies of the lane.
-- bodies: json list of ReplyBody; staff: id. Rows: the last number that they got. Indexes:
-- conversation primary key, reply_sequence_once.
WITH bodies AS (
  SELECT value AS body, ordinality AS place FROM jsonb_array_elements(%(bodies)s::jsonb) WITH ORDINALITY),
lane AS (
  UPDATE conversation c
     SET last_reply_sequence = last_reply_sequence + (SELECT count(*) FROM bodies),
         send_due_at = lane_send_due_at(next_reply_sequence, last_reply_sequence, send_due_at, greatest(now(), phone_until))
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
  RETURNING c.id, c.channel_id, c.last_reply_sequence),
written AS (
  INSERT INTO reply (conversation_id, channel_id, sequence, author, staff_id, body)
  SELECT lane.id, lane.channel_id, lane.last_reply_sequence - (SELECT count(*) FROM bodies) + b.place, 'person', %(staff)s, b.body
    FROM lane, bodies b ORDER BY b.place)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true), (SELECT last_reply_sequence FROM lane)
