-- What platforms told us to wait for, while it lasts. Rows: key, seconds left. No index: a row per bucket that was ever full.
SELECT key, extract(epoch FROM blocked_until - now())::float FROM bucket WHERE blocked_until > now()
