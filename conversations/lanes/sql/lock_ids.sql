-- Locks lanes in id order, skipping those that somebody else has locked, and lists the locked ids
-- in the transaction's setting app.locked. ids: bigint[]. One row, app.locked. Index: primary key.
WITH locked AS MATERIALIZED (
  SELECT c.id FROM conversation c WHERE c.id = ANY (%(ids)s::bigint[]) ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED)
SELECT set_config('app.locked', coalesce(string_agg(id::text, ','), ''), true) FROM locked
