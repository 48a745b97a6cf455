-- Locks one lane for an act of a person, if it is still as the person saw it, and leaves its id in
-- app.locked, a setting of this transaction. The act's later statements work on the lane in
-- app.locked, and empty it where they find nothing to do, so that those after them do nothing
-- either.
-- conversation; epoch, next_sequence, last_reply_sequence, mode, paused: as seen, null for any. Rows:
-- id, tenant; no row where the lane moved.
-- Index: conversation primary key.
WITH seen AS (
  SELECT c.id, c.channel_id FROM conversation c
   WHERE c.id = %(conversation)s
     AND c.epoch = coalesce(%(epoch)s::bigint, c.epoch)
     AND c.next_sequence = coalesce(%(next_sequence)s::bigint, c.next_sequence)
     AND c.last_reply_sequence = coalesce(%(last_reply_sequence)s::bigint, c.last_reply_sequence)
     AND c.mode = coalesce(%(mode)s::text, c.mode)
     AND (c.paused_at IS NOT NULL) = coalesce(%(paused)s::boolean, c.paused_at IS NOT NULL)
     FOR NO KEY UPDATE)
SELECT set_config('app.locked', seen.id::text, true), seen.id,
       (SELECT tenant_id FROM channel WHERE id = seen.channel_id)
  FROM seen
