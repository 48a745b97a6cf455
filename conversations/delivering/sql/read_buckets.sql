-- Reads the platforms' Retry-Afters that have not ended. Rows: channel_id, key,
-- seconds left. Index: none; there is a row per bucket that was ever full.
SELECT channel_id, key, extract(epoch FROM blocked_until - now())::float FROM bucket WHERE blocked_until > now()
