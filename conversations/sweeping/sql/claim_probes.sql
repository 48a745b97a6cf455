-- Claims pauses whose next probe is due, by moving probe_at 30 s into the future.
-- Rows: scope, target, stops. Index: none; there are few rows.
UPDATE pause SET probe_at = now() + interval '30 s'
 WHERE id IN (SELECT id FROM pause WHERE since IS NOT NULL AND NOT by_staff AND probe_at <= now() FOR UPDATE SKIP LOCKED)
RETURNING scope, target, stops
