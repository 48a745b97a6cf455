-- Stores a platform's Retry-After for a bucket (a channel, a chat or a group). Its end only moves
-- later, so that a shorter wait does not undo a longer one.
-- channel_id, key, seconds; words: the platform's reason. No rows. Index: bucket_once.
INSERT INTO bucket AS b (channel_id, key, blocked_until, words)
VALUES (%(channel_id)s, %(key)s, now() + make_interval(secs => %(seconds)s), %(words)s)
ON CONFLICT (channel_id, key) DO UPDATE
   SET blocked_until = greatest(b.blocked_until, excluded.blocked_until), words = excluded.words
