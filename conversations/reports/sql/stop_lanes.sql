-- Keeps what a platform refuses from now on besides one reply, in lanes (conversations) that this
-- transaction holds (app.locked):
--   conversation  everything, until the person writes  -> unreachable_since
--   window        free text, until the person writes   -> window_until, unless they wrote since the intent
--   marketing     what advertises                      -> no_marketing_since
-- items: json list of {reply_id (its result is written in this transaction), or channel_id and platform_id of a
-- status that this transaction keeps, or again: that was kept before; scope; window_s, the seconds of a window}.
-- No rows. The trigger lane_stops writes audit entries, and finds their cause in app.why.
-- Indexes: primary keys, reply_platform_id, status_once.
WITH items AS MATERIALIZED (
  SELECT i.scope, r.conversation_id, r.sequence, r.intent_at + make_interval(secs => i.window_s) AS spent_at
    FROM json_to_recordset(%(items)s::json) AS i(reply_id bigint, channel_id bigint, platform_id text, again boolean, scope text, window_s float)
   CROSS JOIN LATERAL (SELECT conversation_id, sequence, intent_at FROM reply WHERE id = i.reply_id AND settled_at = now()
                        UNION ALL SELECT conversation_id, sequence, intent_at FROM reply
                        WHERE channel_id = i.channel_id AND platform_id = i.platform_id AND platform_id <> ''
                          AND (i.again OR EXISTS (SELECT FROM status s WHERE s.channel_id = i.channel_id AND s.platform_id = i.platform_id
                                                     AND s.status = 'failed' AND s.received_at = now() OFFSET 0)) OFFSET 0) r
   WHERE r.conversation_id = ANY (string_to_array(current_setting('app.locked'), ',')::bigint[])),
stops AS MATERIALIZED (
  SELECT conversation_id AS id, bool_or(scope = 'conversation') AS unreachable, bool_or(scope = 'marketing') AS no_marketing,
         max(spent_at) FILTER (WHERE scope = 'window') AS spent_at, 'reply ' || max(sequence) AS why
    FROM items GROUP BY conversation_id),
why AS MATERIALIZED (
  SELECT set_config('app.why', json_object_agg(id, why)::text, true) FROM stops)
UPDATE conversation c
   SET unreachable_since = CASE WHEN s.unreachable THEN now() ELSE c.unreachable_since END,
       no_marketing_since = CASE WHEN s.no_marketing THEN coalesce(c.no_marketing_since, now()) ELSE c.no_marketing_since END,
       window_until = CASE WHEN s.spent_at >= coalesce(c.window_until, s.spent_at) THEN least(c.window_until, now()) ELSE c.window_until END
  FROM stops s CROSS JOIN why
 WHERE c.id = s.id AND c.id = ANY (ARRAY(SELECT id FROM stops))
