-- Claims lanes with replies to deliver, like claim_due. Rows: conversation id, tenant id. Index: conversation_send_due.
WITH due AS MATERIALIZED (
  SELECT l.id, ch.tenant_id FROM channel ch
   CROSS JOIN LATERAL (SELECT c.id FROM conversation c WHERE c.channel_id = ch.id AND c.send_due_at <= now()
                        ORDER BY c.send_due_at LIMIT %(per_channel)s FOR NO KEY UPDATE SKIP LOCKED) l
   WHERE ch.active AND ch.id <> ALL (%(stopped)s::bigint[]) LIMIT %(all_in)s)
UPDATE conversation c SET send_due_at = now() + interval '10 s'
  FROM due d WHERE c.id = d.id
RETURNING c.id, d.tenant_id
