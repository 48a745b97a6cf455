-- Writes what an attempt to fetch a file came to, unless another attempt has begun since.
-- id, attempt; counted: attempts from now on; status; delay: seconds until the next attempt of a file that still waits, else null;
-- content_type, size, error.
-- Rows: one if it was written. Index: media_pkey.
UPDATE media m
   SET status = %(status)s, attempts = %(counted)s, claimed = false, due_at = now() + make_interval(secs => %(delay)s),
       content_type = %(content_type)s, size = %(size)s, error = %(error)s
 WHERE m.id = %(id)s AND m.attempts = %(attempt)s AND m.status = 'waiting'
RETURNING 1
