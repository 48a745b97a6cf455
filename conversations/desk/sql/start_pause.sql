-- Stops handling or sending of a whole channel, bot or tenant, until staff end it.
-- scope, target, stops, reason; staff: id. Rows: the pause's id; no row where staff have stopped it
-- already. Index: pause_once.
WITH stopped AS (
  INSERT INTO pause AS p (scope, target, stops, reason, by_staff, since)
  VALUES (%(scope)s, %(target)s, %(stops)s, %(reason)s, true, now())
      ON CONFLICT (scope, target, stops) DO UPDATE
     SET reason = excluded.reason, by_staff = true, since = coalesce(p.since, now()), probe_at = NULL, updated_at = now()
   WHERE NOT p.by_staff
  RETURNING id),
noted AS (
  INSERT INTO audit (staff_id, verb, tenant_id, subject, reason)
  SELECT %(staff)s, 'start_pause', CASE %(scope)s WHEN 'channel' THEN (SELECT tenant_id FROM channel WHERE id::text = %(target)s)
                                                  WHEN 'tenant' THEN (SELECT id FROM tenant WHERE id::text = %(target)s) END,
         %(scope)s || ' ' || %(target)s || ': ' || %(stops)s, %(reason)s FROM stopped)
SELECT id FROM stopped
