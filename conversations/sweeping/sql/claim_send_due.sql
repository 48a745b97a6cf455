-- Claims lanes with replies to deliver, by pushing send_due_at 10 s on; whoever else sweeps skips them.
-- channels: bigint[], active and not stopped; per_channel: at most so many of each, oldest first; all_in: at most so many.
-- Rows: conversation id, tenant id. Index: conversation_send_due.
WITH due AS MATERIALIZED (
  SELECT l.id, ch.tenant_id FROM unnest(%(channels)s::bigint[]) WITH ORDINALITY AS i(id, place)
    JOIN channel ch ON ch.id = i.id
   CROSS JOIN LATERAL (SELECT c.id FROM conversation c WHERE c.channel_id = ch.id AND c.send_due_at <= now()
                        ORDER BY c.send_due_at LIMIT %(per_channel)s FOR NO KEY UPDATE SKIP LOCKED) l
   LIMIT %(all_in)s)
UPDATE conversation c SET send_due_at = now() + interval '10 s'
  FROM due d WHERE c.id = d.id AND c.id = ANY (ARRAY(SELECT id FROM due))
RETURNING c.id, d.tenant_id
