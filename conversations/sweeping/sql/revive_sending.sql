-- Makes lanes due for sending that a dead sender had in hand, in id order.
-- ids: bigint[]. No rows. Index: primary key.
WITH lanes AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (%(ids)s::bigint[]) AND c.send_due_at IS NOT NULL
   ORDER BY c.id FOR NO KEY UPDATE)
UPDATE conversation c SET send_due_at = now() FROM lanes l WHERE c.id = l.id AND c.id = ANY (ARRAY(SELECT id FROM lanes))
