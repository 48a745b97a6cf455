-- Keeps the raw bodies of receipts that brought something new.
-- ids: bigint[], headers: text[] (json), bodies: bytea[]. No rows.
INSERT INTO receipt_body (receipt_id, headers, body)
SELECT b.id, b.headers::jsonb, b.body
  FROM unnest(%(ids)s::bigint[], %(headers)s::text[], %(bodies)s::bytea[]) AS b(id, headers, body)
 WHERE EXISTS (SELECT FROM receipt r WHERE r.id = b.id AND r.stored + r.quarantined + r.noted > 0)
ON CONFLICT DO NOTHING
