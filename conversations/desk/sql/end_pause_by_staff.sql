-- Ends a pause, if it is the one that the person saw. pause: id; since: as seen (null: it only counts); staff, reason.
-- Rows: scope, target, stops. Index: pause primary key.
WITH ended AS (
  DELETE FROM pause WHERE id = %(pause)s AND since IS NOT DISTINCT FROM %(since)s::timestamptz RETURNING scope, target, stops, reason),
noted AS (
  INSERT INTO audit (staff_id, verb, subject, reason)
  SELECT %(staff)s, 'end_pause', scope || ' ' || target || ': ' || stops, concat_ws('; was: ', nullif(%(reason)s::text, ''), reason)
    FROM ended)
SELECT scope, target, stops FROM ended
