-- Moves the end of claims on, or gives them back: then any process may fetch these files, before others.
-- A claim that was given back counts as an attempt: its process may still write under the attempt's name.
-- ids: uuid[], attempts: smallint[] of the same order; seconds: from now, or null to give back.
-- No rows. Index: media_pkey.
UPDATE media m SET claimed = %(seconds)s::float IS NOT NULL,
       due_at = coalesce(now() + make_interval(secs => %(seconds)s::float), '-infinity')
  FROM unnest(%(ids)s::uuid[], %(attempts)s::smallint[]) AS c(id, attempts)
 WHERE m.id = c.id AND m.id = ANY (%(ids)s::uuid[]) AND m.attempts = c.attempts AND m.status = 'waiting'
