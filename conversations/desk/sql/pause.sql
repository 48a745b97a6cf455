-- Stops or starts the bot in one lane; replies still go out.
-- paused: boolean. Index: conversation primary key.
UPDATE conversation c
   SET paused_at = CASE WHEN %(paused)s THEN now() END,
       due_at = lane_due_at(mode, CASE WHEN %(paused)s THEN now() END, blocked, next_sequence, last_sequence, not_before,
                            wait_until, now())
 WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
