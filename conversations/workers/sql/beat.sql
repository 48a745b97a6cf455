-- Writes a process's heartbeat and the lanes in hand. No row comes back if a sweeper has marked it
-- dead.
-- incarnation, kind, host, pid, version, running (json list); bots: names (json list), null where it
-- runs none. Rows: 1. Index: primary key.
INSERT INTO worker AS w (incarnation, kind, host, pid, version, running, bots, beat)
VALUES (%(incarnation)s, %(kind)s, %(host)s, %(pid)s, %(version)s, %(running)s::jsonb, %(bots)s::jsonb, 1)
ON CONFLICT (incarnation) DO UPDATE SET beat = w.beat + 1, beat_at = now(), running = excluded.running
 WHERE NOT w.dead
RETURNING 1
