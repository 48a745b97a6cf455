-- Makes a file the first that its channel fetches, unless a process is fetching it now.
-- id. Rows: channel id, tenant id. Indexes: media_pkey, channel's key.
UPDATE media m SET due_at = '-infinity'
 WHERE m.id = %(id)s AND m.status = 'waiting' AND (NOT m.claimed OR m.due_at <= now())
RETURNING m.channel_id, (SELECT ch.tenant_id FROM channel ch WHERE ch.id = m.channel_id)
