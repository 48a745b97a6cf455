-- Finds files that their tenant keeps no longer, the oldest of each channel, in any order: no channel's wait
-- for those of another.
-- days: for tenants that say nothing else; most: rows of each channel.
-- Rows: id, channel id, attempts. Index: media_kept.
SELECT o.id, ch.id, o.attempts
  FROM channel ch JOIN tenant t ON t.id = ch.tenant_id
 CROSS JOIN LATERAL (SELECT m.id, m.attempts FROM media m
                      WHERE m.channel_id = ch.id AND m.status = 'stored'
                        AND m.created_at < now() - make_interval(days => coalesce(t.media_days, %(days)s))
                      ORDER BY m.created_at LIMIT %(most)s) o
 ORDER BY random()
