-- Keeps the raw bodies of receipts that brought something new. With the receipt's own time: the same body is kept once.
-- ids: bigint[], headers: text[] (json), bodies: bytea[]. Rows: receipt ids that were kept.
INSERT INTO receipt_body (receipt_id, received_at, headers, body)
SELECT b.id, r.received_at, b.headers::jsonb, b.body
  FROM unnest(%(ids)s::bigint[], %(headers)s::text[], %(bodies)s::bytea[]) AS b(id, headers, body)
  JOIN receipt r ON r.id = b.id
 WHERE r.stored + r.quarantined + r.noted > 0
ON CONFLICT DO NOTHING
RETURNING receipt_id
