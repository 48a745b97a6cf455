-- Claims files that are due to be fetched. A claim ends at due_at, unless its process moves that on.
-- channels: bigint[], each one file at most, the one due first. all_in: most files. seconds: how
-- long a claim lasts.
-- Rows: id, channel id, number of the attempt, the attachment. Index: media_due.
WITH due AS MATERIALIZED (
  SELECT f.id FROM unnest(%(channels)s::bigint[]) AS i(id)
   CROSS JOIN LATERAL (SELECT m.id FROM media m WHERE m.channel_id = i.id AND m.due_at <= now()
                        ORDER BY m.due_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) f
   LIMIT %(all_in)s)
UPDATE media m SET due_at = now() + make_interval(secs => %(seconds)s), claimed = true, attempts = m.attempts + 1
 WHERE m.id = ANY (ARRAY(SELECT id FROM due))
RETURNING m.id, m.channel_id, m.attempts, m.reference
