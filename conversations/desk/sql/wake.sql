-- Makes the lane due now, for handling and for delivering, where there is work for a machine.
-- No arguments. Index: conversation primary key.
WITH lane AS (
  UPDATE conversation c
     SET due_at = lane_due_at(mode, paused_at, blocked, next_sequence, last_sequence, not_before, wait_until, now()),
         send_due_at = CASE WHEN send_due_at IS NOT NULL THEN now() END
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint
  RETURNING c.id)
SELECT set_config('app.locked', coalesce((SELECT id::text FROM lane), ''), true)
