-- Finds the kinds of process of which one is alive: it sent a heartbeat in the last 10 seconds. No
-- arguments. Rows: kind.
SELECT DISTINCT kind FROM worker WHERE NOT dead AND beat_at > now() - interval '10 s'
