-- Locks one lane for an act of a person, if it still is what the person saw, and leaves its id as app.locked.
-- Every later statement of the act works on app.locked and leaves it empty when it found nothing to do.
-- conversation; epoch, next_sequence, mode, paused: as seen, null for any. Rows: id, tenant; none: it moved.
-- Index: conversation primary key.
WITH seen AS (
  SELECT c.id, c.channel_id FROM conversation c
   WHERE c.id = %(conversation)s
     AND c.epoch = coalesce(%(epoch)s::bigint, c.epoch)
     AND c.next_sequence = coalesce(%(next_sequence)s::bigint, c.next_sequence)
     AND c.mode = coalesce(%(mode)s::text, c.mode)
     AND (c.paused_at IS NOT NULL) = coalesce(%(paused)s::boolean, c.paused_at IS NOT NULL)
     FOR NO KEY UPDATE)
SELECT set_config('app.locked', seen.id::text, true), seen.id,
       (SELECT tenant_id FROM channel WHERE id = seen.channel_id)
  FROM seen
