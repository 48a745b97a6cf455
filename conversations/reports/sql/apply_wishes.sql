-- Keeps what people said about our messages in the lanes (conversations) of messages that this transaction
-- has stored; a message that was stored before says nothing again. The last word of a batch counts.
--   nothing, all             -> opted_out_at
--   no_marketing, marketing  -> no_marketing_since
-- items: json list of {ord, identity, receipt_id, entry, wish}. No rows. The trigger lane_stops writes
-- audit entries, and finds their cause in app.why.
-- Indexes: message_identity_once, conversation primary key.
WITH said AS MATERIALIZED (
  SELECT m.conversation_id AS id, coalesce('message ' || max(m.sequence), 'a message') AS why,
         (array_agg(i.wish ORDER BY i.ord DESC) FILTER (WHERE i.wish IN ('nothing', 'all')))[1] AS wish,
         (array_agg(i.wish ORDER BY i.ord DESC) FILTER (WHERE i.wish IN ('no_marketing', 'marketing')))[1] AS marketing
    FROM json_to_recordset(%(items)s::json) AS i(ord integer, identity text, receipt_id bigint, entry smallint, wish text)
   CROSS JOIN LATERAL (SELECT conversation_id, sequence, receipt_id, entry FROM message h
                        WHERE h.identity = decode(i.identity, 'hex') LIMIT 1) m
   WHERE m.receipt_id = i.receipt_id AND m.entry = i.entry
   GROUP BY m.conversation_id),
why AS MATERIALIZED (
  SELECT set_config('app.why', json_object_agg(id, why)::text, true) FROM said)
UPDATE conversation c
   SET opted_out_at = CASE s.wish WHEN 'nothing' THEN coalesce(c.opted_out_at, now()) WHEN 'all' THEN NULL ELSE c.opted_out_at END,
       no_marketing_since = CASE s.marketing WHEN 'no_marketing' THEN coalesce(c.no_marketing_since, now())
                                             WHEN 'marketing' THEN NULL ELSE c.no_marketing_since END
  FROM said s CROSS JOIN why
 WHERE c.id = s.id AND c.id = ANY (ARRAY(SELECT id FROM said))
