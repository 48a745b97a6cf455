-- Walks over all files by their id, and finds those to which nothing refers: their message is gone,
-- or they were uploaded and never sent.
-- after: the last id of the round before; most: ids to look at.
-- Rows: id, channel id, attempts, orphaned. Indexes: media_pkey, message_pkey.
SELECT f.id, f.channel_id, f.attempts,
       CASE WHEN f.message_id IS NOT NULL THEN NOT EXISTS (SELECT FROM message g WHERE g.id = f.message_id OFFSET 0)
            ELSE f.conversation_id IS NULL AND f.created_at < now() - interval '1 day' END
  FROM (SELECT * FROM media m WHERE m.id > %(after)s ORDER BY m.id LIMIT %(most)s) f
 ORDER BY f.id
