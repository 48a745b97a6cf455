-- Lanes that a dead worker had in hand are due at once, in id order; those of a handler are suspects where the head has not moved.
-- ids: bigint[]; suspects: boolean. No rows. Index: primary key.
WITH lanes AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (%(ids)s::bigint[]) ORDER BY c.id FOR NO KEY UPDATE)
UPDATE conversation c
   SET suspect = c.suspect OR (%(suspects)s AND c.mode = 'bot' AND c.next_sequence <= c.last_sequence),
       due_at = lane_due_at(c.mode, c.paused_at, c.blocked, c.next_sequence, c.last_sequence, c.not_before, c.wait_until, now())
  FROM lanes l WHERE c.id = l.id
