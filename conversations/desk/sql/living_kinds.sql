-- Finds the kinds of process that are alive. No arguments. Rows: kind.
SELECT DISTINCT kind FROM worker WHERE NOT dead AND beat_at > now() - interval '10 s'
