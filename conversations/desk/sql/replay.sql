-- Puts a copy of a passed message at the tail. The original of an unparked message becomes skipped,
-- so that it comes back once.
-- message: id; identity: bytea; statuses: text[], what the original may be; unpark: boolean.
-- Rows: the copy's number. Indexes: message primary key, conversation primary key,
-- message_identity_once.
WITH original AS (
  SELECT m.* FROM message m JOIN conversation c ON c.id = m.conversation_id
   WHERE m.id = %(message)s AND m.status = ANY (%(statuses)s::text[]) AND m.sequence < c.next_sequence
     AND c.id = nullif(current_setting('app.locked', true), '')::bigint),
lane AS (
  UPDATE conversation c
     SET last_sequence = last_sequence + 1,
         due_at = lane_due_at(mode, paused_at, blocked, next_sequence, last_sequence + 1, not_before, wait_until, now())
    FROM original o WHERE c.id = o.conversation_id
  RETURNING c.id, c.last_sequence),
copy AS (
  INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, text, payload, sender,
                       platform_id, delivery_id, receipt_id, entry, replay_of)
  SELECT lane.id, lane.last_sequence, %(identity)s, o.content_hash, o.kind, o.starts_turn, o.text, o.payload, o.sender,
         o.platform_id, o.delivery_id, o.receipt_id, o.entry, o.id
    FROM original o, lane),
passed AS (
  UPDATE message m SET status = 'skipped', settled_at = now(), note = concat_ws('; ', nullif(m.note, ''), 'unparked as ' || lane.last_sequence)
    FROM lane WHERE m.id = %(message)s AND %(unpark)s)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true), (SELECT last_sequence FROM lane)
