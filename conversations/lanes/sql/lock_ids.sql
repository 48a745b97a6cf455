-- Locks lanes by id, in id order, without waiting, and leaves the ids in the transaction as app.locked.
-- ids: bigint[]. One row, ignored. Index: primary key.
WITH locked AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (%(ids)s::bigint[]) ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED)
SELECT set_config('app.locked', coalesce(string_agg(id::text, ','), ''), true) FROM locked
