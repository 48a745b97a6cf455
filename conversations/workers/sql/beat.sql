-- Writes a process's heartbeat and the lanes in hand. No row comes back if a sweeper has marked it
-- dead. Its own COMMIT does not wait for the disk: every later COMMIT writes this one first, and if
-- Postgres crashes before, a message that killed its worker is only suspected the next time.
-- incarnation, kind, host, pid, version, running (json list); bots: names (json list), null where it
-- runs none. Rows: 1. Index: primary key.
INSERT INTO worker AS w (incarnation, kind, host, pid, version, running, bots, beat)
VALUES (%(incarnation)s, %(kind)s, %(host)s, %(pid)s, %(version)s, %(running)s::jsonb, %(bots)s::jsonb, 1)
ON CONFLICT (incarnation) DO UPDATE SET beat = w.beat + 1, beat_at = now(), running = excluded.running
 WHERE NOT w.dead
RETURNING set_config('synchronous_commit', 'off', true)
