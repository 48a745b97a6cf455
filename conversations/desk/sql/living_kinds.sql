-- Kinds of process that live. No arguments. Rows: kind.
SELECT DISTINCT kind FROM worker WHERE NOT dead AND beat_at > now() - interval '10 s'
