-- Ends a pause if it is the one that the person saw. pause: id; since: as the person saw it (null
-- while failures are only counted); staff, reason.
-- Rows: scope, target, stops. Index: pause primary key.
WITH ended AS (
  DELETE FROM pause WHERE id = %(pause)s AND since IS NOT DISTINCT FROM %(since)s::timestamptz RETURNING scope, target, stops, reason),
noted AS (
  INSERT INTO audit (staff_id, verb, tenant_id, subject, reason)
  SELECT %(staff)s, 'end_pause', CASE scope WHEN 'channel' THEN (SELECT tenant_id FROM channel WHERE id::text = target)
                                            WHEN 'tenant' THEN (SELECT id FROM tenant WHERE id::text = target) END,
         scope || ' ' || target || ': ' || stops, concat_ws('; was: ', nullif(%(reason)s::text, ''), reason)
    FROM ended)
SELECT scope, target, stops FROM ended
