-- Keeps that the person wants no message from us; or ends that, and whatever else stops replies to them.
-- out: boolean. app.why tells the trigger lane_stops that the act writes its own audit entry.
-- Index: conversation primary key.
WITH why AS MATERIALIZED (SELECT set_config('app.why', 'staff', true)),
done AS (
  UPDATE conversation c
     SET opted_out_at = CASE WHEN %(out)s THEN now() END,
         no_marketing_since = CASE WHEN %(out)s THEN c.no_marketing_since END,
         unreachable_since = CASE WHEN %(out)s THEN c.unreachable_since END
    FROM why
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
     AND CASE WHEN %(out)s THEN c.opted_out_at IS NULL
              ELSE num_nonnulls(c.opted_out_at, c.no_marketing_since, c.unreachable_since) > 0 END
  RETURNING c.id)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM done), ''), true)
