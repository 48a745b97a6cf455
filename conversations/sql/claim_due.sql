-- Claims lanes that are due, per active channel that is not stopped, by pushing due_at 10 s on; whoever else sweeps skips them.
-- stopped: channel ids whose handling is stopped; per_channel: at most so many of each; all_in: at most so many.
-- Rows: conversation id, tenant id. Index: conversation_due (per channel, oldest first).
WITH due AS MATERIALIZED (
  SELECT l.id, ch.tenant_id FROM channel ch
   CROSS JOIN LATERAL (SELECT c.id FROM conversation c WHERE c.channel_id = ch.id AND c.due_at <= now()
                        ORDER BY c.due_at LIMIT %(per_channel)s FOR NO KEY UPDATE SKIP LOCKED) l
   WHERE ch.active AND ch.id <> ALL (%(stopped)s::bigint[]) LIMIT %(all_in)s)
UPDATE conversation c SET due_at = now() + interval '10 s'
  FROM due d WHERE c.id = d.id
RETURNING c.id, d.tenant_id
