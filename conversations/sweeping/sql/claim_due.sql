-- Claims lanes that are due, by moving due_at 10 s into the future; other sweepers skip locked
-- rows.
-- channels: bigint[], active and not stopped. per_channel, all_in: most lanes per channel, oldest
-- first, and in all.
-- Rows: conversation id, tenant id. Index: conversation_due.
WITH due AS MATERIALIZED (
  SELECT l.id, ch.tenant_id FROM unnest(%(channels)s::bigint[]) WITH ORDINALITY AS i(id, place)
    JOIN channel ch ON ch.id = i.id
   CROSS JOIN LATERAL (SELECT c.id FROM conversation c WHERE c.channel_id = ch.id AND c.due_at <= now()
                        ORDER BY c.due_at LIMIT %(per_channel)s FOR NO KEY UPDATE SKIP LOCKED) l
   LIMIT %(all_in)s)
UPDATE conversation c SET due_at = now() + interval '10 s'
  FROM due d WHERE c.id = d.id AND c.id = ANY (ARRAY(SELECT id FROM due))
RETURNING c.id, d.tenant_id
