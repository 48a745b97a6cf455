-- Marks a worker dead if its heartbeat is still the one that the caller saw stop.
-- incarnation, beat. Rows: 1 if it was marked. Index: primary key.
UPDATE worker SET dead = true WHERE incarnation = %(incarnation)s AND beat = %(beat)s AND NOT dead
RETURNING 1
