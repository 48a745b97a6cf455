-- Counts one failure of a channel (its member is a conversation) or of a bot (its member is a channel).
-- At the limit it is stopped. A member counts four times at most, fewer than the limit, so that two
-- members or more must fail; one whose failures are its own fault (pause.theirs) does not count.
-- scope, target, stops, reason, member; limit: failures; at_once: this one stops it.
-- Row: stopped now, stopped by this failure, by staff, failures, theirs; no row for a member that
-- does not count. Index: pause_once.
INSERT INTO pause AS p (scope, target, stops, reason, failures, first_conversation, members, since, probe_at)
VALUES (%(scope)s, %(target)s, %(stops)s, %(reason)s, 1, %(member)s, jsonb_build_array(%(member)s::bigint),
        CASE WHEN %(at_once)s THEN now() END, CASE WHEN %(at_once)s THEN now() + interval '5 s' END)
ON CONFLICT (scope, target, stops) DO UPDATE
   SET failures = p.failures + 1,
       members = CASE WHEN jsonb_array_length(p.members) < 100
                       AND (SELECT count(*) FROM jsonb_array_elements(p.members) m WHERE m = to_jsonb(%(member)s::bigint)) < 4
                      THEN p.members || excluded.members ELSE p.members END,
       reason = CASE WHEN p.by_staff THEN p.reason ELSE excluded.reason END,
       updated_at = now(),
       since = coalesce(p.since, CASE WHEN %(at_once)s OR (jsonb_array_length(p.members) + 1 >= %(limit)s
               AND (SELECT count(*) FROM jsonb_array_elements(p.members) m WHERE m = to_jsonb(%(member)s::bigint)) < 4) THEN now() END),
       probe_at = coalesce(p.probe_at, CASE WHEN p.since IS NULL THEN now() + interval '5 s' END)
 WHERE %(at_once)s OR NOT p.theirs @> excluded.members
RETURNING since IS NOT NULL, since = now(), by_staff, failures, theirs
