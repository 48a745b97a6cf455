-- Claims pauses whose next probe is due, by moving probe_at 30 s into the future. Pauses of handling
-- in which only one or two members have failed so far come each time, since another member may be
-- tried at once. After an hour, forgets whose fault it was.
-- Rows: scope, target, stops, since, members (those that failed), due. Index: none; there are
-- few rows.
WITH forgotten AS (
  DELETE FROM pause WHERE since IS NULL AND theirs <> '[]' AND updated_at < now() - interval '1 h'),
due AS (
  UPDATE pause SET probe_at = now() + interval '30 s'
   WHERE id IN (SELECT id FROM pause WHERE since IS NOT NULL AND NOT by_staff AND probe_at <= now() FOR UPDATE SKIP LOCKED)
  RETURNING scope, target, stops, since, members)
SELECT scope, target, stops, since, members, true FROM due
UNION ALL
SELECT scope, target, stops, since, members, false FROM pause
 WHERE since IS NOT NULL AND NOT by_staff AND probe_at > now() AND stops = 'handling' 
   AND (SELECT count(DISTINCT m) FROM jsonb_array_elements(members) m) BETWEEN 1 AND 2
