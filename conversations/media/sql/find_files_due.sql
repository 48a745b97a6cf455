-- Finds the channels that have files to fetch of which nobody took the wake: due for 3 s.
-- No arguments. Rows: channel id, tenant id. Index: media_due (one probe per channel).
SELECT ch.id, ch.tenant_id FROM channel ch
 WHERE EXISTS (SELECT FROM media m WHERE m.channel_id = ch.id AND m.due_at <= now() - interval '3 s' ORDER BY m.due_at OFFSET 0)
