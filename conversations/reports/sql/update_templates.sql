-- Writes what a platform reports of a template: its status, its quality or, without both, that it changed.
-- Reports come in any order: one that is older than the newest of its kind changes nothing. The rows are
-- those of the webhook's channel and of the other channels of its app.
-- channel, app (0: none), account, name, language, at (unix seconds), status, quality. No rows.
-- Indexes: template_once, channel_pkey, the key of channel.app_id.
UPDATE template t
   SET status = CASE WHEN u.status <> '' AND u.at >= t.status_at THEN u.status ELSE t.status END,
       status_at = CASE WHEN u.status <> '' THEN greatest(u.at, t.status_at) ELSE t.status_at END,
       quality = CASE WHEN u.quality <> '' AND u.at >= t.quality_at THEN u.quality ELSE t.quality END,
       quality_at = CASE WHEN u.quality <> '' THEN greatest(u.at, t.quality_at) ELSE t.quality_at END,
       changed_at = CASE WHEN u.status = '' AND u.quality = '' THEN greatest(u.at, t.changed_at) ELSE t.changed_at END
  FROM (SELECT to_timestamp(%(at)s::float) AS at, %(status)s::text AS status, %(quality)s::text AS quality) u
 WHERE t.channel_id = ANY (ARRAY(SELECT id FROM channel WHERE id = %(channel)s::bigint
                                 UNION SELECT id FROM channel WHERE app_id = %(app)s::bigint))
   AND t.account = %(account)s::text AND t.name = %(name)s::text AND t.language = %(language)s::text
