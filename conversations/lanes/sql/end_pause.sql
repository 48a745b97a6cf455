-- Ends the count and the pause after a success, unless staff stopped it.
-- Where only one or two members had failed and another one succeeded, the fault is theirs: the row
-- stays and remembers them, without a count (the newest of them, where there are many), until one of
-- them succeeds. A success of a member that had failed ends, with the pause of a bot, those of all
-- its channels.
-- scope, target, stops; member: what succeeded, as in count_failure.sql; null: settings were changed.
-- No rows. Index: pause_once, pause primary key.
WITH known AS MATERIALIZED (
  SELECT id, scope, target, since, theirs, members, coalesce(members @> to_jsonb(%(member)s::bigint), true) AS had_failed,
         since IS NOT NULL AND (SELECT count(DISTINCT m) FROM jsonb_array_elements(members) m) BETWEEN 1 AND 2 AS few
    FROM pause WHERE scope = %(scope)s AND target = %(target)s AND stops = %(stops)s AND NOT by_staff FOR UPDATE),
judged AS (
  SELECT *, few AND NOT had_failed AS learned,
         %(member)s::bigint IS NOT NULL AND NOT theirs @> to_jsonb(%(member)s::bigint)
         AND (theirs <> '[]' OR (few AND NOT had_failed)) AS kept FROM known),
remembered AS (
  UPDATE pause p
     SET since = NULL, probe_at = NULL, failures = 0, members = '[]', updated_at = now(),
         theirs = CASE WHEN NOT j.learned THEN p.theirs WHEN jsonb_array_length(p.theirs) > 100 THEN j.members
                       ELSE p.theirs || j.members END
    FROM judged j WHERE p.id = j.id AND j.kept),
released AS (
  DELETE FROM pause p USING judged j
   WHERE j.scope = 'bot' AND j.since IS NOT NULL AND j.had_failed AND p.scope = 'channel' AND p.stops = %(stops)s AND NOT p.by_staff
     AND p.target IN (SELECT ch.id::text FROM channel ch WHERE ch.bot = j.target))
DELETE FROM pause p USING judged j WHERE p.id = j.id AND NOT j.kept
