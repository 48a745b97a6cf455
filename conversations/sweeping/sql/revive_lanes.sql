-- Makes lanes due that a dead process was handling, in id order. Lanes with messages left become
-- suspects.
-- ids: bigint[]. No rows. Index: primary key.
WITH lanes AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (%(ids)s::bigint[]) ORDER BY c.id FOR NO KEY UPDATE)
UPDATE conversation c
   SET suspect = c.suspect OR (c.mode = 'bot' AND c.next_sequence <= c.last_sequence),
       due_at = lane_due_at(c.mode, c.paused_at, c.blocked, c.next_sequence, c.last_sequence, c.not_before, c.wait_until, now())
  FROM lanes l WHERE c.id = l.id AND c.id = ANY (ARRAY(SELECT id FROM lanes))
