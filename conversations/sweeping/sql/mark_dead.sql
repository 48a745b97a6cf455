-- Marks a worker dead whose beat did not change while the caller watched. incarnation, beat. Rows: 1.
UPDATE worker SET dead = true WHERE incarnation = %(incarnation)s AND beat = %(beat)s AND NOT dead
RETURNING 1
