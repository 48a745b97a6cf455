-- Marks files to which nothing refers, before their bytes are deleted: their message is gone, or they were
-- uploaded and not sent within a day. A message that is being stored has taken its file just before.
-- place: a random id, from which on rows are looked at for messages that are gone, and then from the
-- smallest id on; most: rows, and uploads.
-- Rows: id, channel id, attempts. Indexes: media_pkey, message_pkey, media_unsent.
WITH seen AS (
  (SELECT m.id, m.message_id FROM media m WHERE m.id >= %(place)s ORDER BY m.id LIMIT %(most)s)
   UNION ALL
  (SELECT m.id, m.message_id FROM media m WHERE m.id < %(place)s ORDER BY m.id LIMIT %(most)s)
   LIMIT %(most)s),
gone AS MATERIALIZED (
  SELECT s.id FROM seen s WHERE s.message_id IS NOT NULL AND NOT EXISTS (SELECT FROM message g WHERE g.id = s.message_id OFFSET 0)),
unsent AS MATERIALIZED (
  SELECT m.id FROM media m WHERE m.conversation_id IS NULL AND m.created_at < now() - interval '1 day' ORDER BY m.created_at LIMIT %(most)s)
UPDATE media m SET status = 'refused', claimed = false, due_at = NULL, error = 'nothing refers to it'
 WHERE m.id = ANY (ARRAY(SELECT id FROM gone UNION ALL SELECT id FROM unsent))
   AND (m.id = ANY (ARRAY(SELECT id FROM gone)) OR (m.conversation_id IS NULL AND m.created_at < now() - interval '1 day'))
RETURNING m.id, m.channel_id, m.attempts
