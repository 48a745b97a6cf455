-- Counts one failure of a bot or channel. At the limit, in two conversations or more, it is stopped.
-- scope, target, stops, reason, conversation_id; limit: failures; at_once: this one stops it.
-- Row: stopped now, stopped by this failure. Index: pause_once.
INSERT INTO pause AS p (scope, target, stops, reason, failures, first_conversation, since, probe_at)
VALUES (%(scope)s, %(target)s, %(stops)s, %(reason)s, 1, %(conversation_id)s,
        CASE WHEN %(at_once)s THEN now() END, CASE WHEN %(at_once)s THEN now() + interval '5 s' END)
ON CONFLICT (scope, target, stops) DO UPDATE
   SET failures = p.failures + 1,
       several = p.several OR p.first_conversation IS DISTINCT FROM excluded.first_conversation,
       reason = CASE WHEN p.by_staff THEN p.reason ELSE excluded.reason END,
       updated_at = now(),
       since = coalesce(p.since, CASE WHEN %(at_once)s OR (p.failures + 1 >= %(limit)s
               AND (p.several OR p.first_conversation IS DISTINCT FROM excluded.first_conversation)) THEN now() END),
       probe_at = coalesce(p.probe_at, CASE WHEN p.since IS NULL THEN now() + interval '5 s' END)
RETURNING since IS NOT NULL, since = now()
