-- Appends a copy of a settled reply as a person's reply; the old one leaves staff's list.
-- reply: id; statuses: text[], what it may be; staff: id; body: a ReplyBody in place of its own, or null. Rows: the
-- new number.
-- Indexes: reply primary key, conversation primary key, reply_sequence_once.
WITH original AS (
  SELECT r.* FROM reply r
   WHERE r.id = %(reply)s AND r.status = ANY (%(statuses)s::text[])
     AND r.conversation_id = nullif(current_setting('app.locked', true), '')::bigint),
lane AS (
  UPDATE conversation c
     SET last_reply_sequence = last_reply_sequence + 1,
         send_due_at = lane_send_due_at(next_reply_sequence, last_reply_sequence, send_due_at, greatest(now(), phone_until))
    FROM original o WHERE c.id = o.conversation_id
  RETURNING c.id, c.last_reply_sequence),
again AS (
  INSERT INTO reply (conversation_id, channel_id, sequence, message_id, author, staff_id, body)
  SELECT lane.id, o.channel_id, lane.last_reply_sequence, o.message_id, 'person', %(staff)s,
         coalesce(%(body)s::jsonb, o.body) FROM original o, lane),
replaced AS (
  UPDATE reply r SET status = 'cancelled', settled_at = now(),
         error = concat_ws('; ', nullif(r.error, ''), CASE WHEN %(body)s::jsonb IS NULL THEN 'sent again as ' ELSE 'replaced by ' END || lane.last_reply_sequence)
    FROM lane WHERE r.id = %(reply)s)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true), (SELECT last_reply_sequence FROM lane)
