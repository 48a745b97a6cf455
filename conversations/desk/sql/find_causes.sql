-- Finds what stops many conversations at once, and counts those that wait for it (up to 1,000).
-- A bot counts as unknown if handling processes live and none of them knows it; one that does not say
-- which bots it knows (worker.bots is null) may know any.
-- channels: bigint[]. Rows: see facts.Cause.
-- Indexes: pause_once, conversation_due, conversation_send_due, quarantine_open.
WITH mine AS (SELECT * FROM channel WHERE id = ANY (%(channels)s::bigint[])),
living AS (SELECT bots FROM worker WHERE kind = 'handle' AND NOT dead AND beat_at > now() - interval '10 s'),
stops AS (
  SELECT p.id AS pause_id, p.scope, p.target, p.stops, p.reason, p.failures, p.by_staff, p.since, p.probe_at,
         ARRAY(SELECT id FROM mine m WHERE (p.scope = 'bot' AND m.bot = p.target) OR (p.scope = 'channel' AND m.id::text = p.target)
                  OR (p.scope = 'tenant' AND m.tenant_id::text = p.target)) AS channels
    FROM pause p WHERE p.since IS NOT NULL
  UNION ALL
  SELECT NULL, 'off', m.name, 'handling', '', 0, true, NULL, NULL, ARRAY[m.id] FROM mine m WHERE NOT m.active
  UNION ALL
  SELECT NULL, 'unknown', m.bot, 'handling', '', 0, false, NULL, NULL, array_agg(m.id) FROM mine m
   WHERE m.active AND EXISTS (SELECT FROM living)
     AND NOT EXISTS (SELECT FROM living w WHERE w.bots IS NULL OR w.bots @> to_jsonb(m.bot::text))
   GROUP BY m.bot)
SELECT s.pause_id, s.scope, s.target, s.stops, s.reason, s.failures, s.by_staff, s.since, s.probe_at, s.channels,
       ARRAY(SELECT name FROM mine m WHERE m.id = ANY (s.channels) ORDER BY id LIMIT 3) AS names,
       (SELECT count(*) FROM (
          SELECT FROM unnest(s.channels) AS ch(id)
           CROSS JOIN LATERAL (
             (SELECT FROM conversation c WHERE s.stops = 'handling' AND c.channel_id = ch.id AND c.due_at IS NOT NULL LIMIT 1000)
             UNION ALL
             (SELECT FROM conversation c WHERE s.stops = 'sending' AND c.channel_id = ch.id AND c.send_due_at IS NOT NULL LIMIT 1000)) w
           LIMIT 1000) n) AS waiting
  FROM stops s WHERE cardinality(s.channels) > 0 ORDER BY s.since NULLS LAST LIMIT 200
