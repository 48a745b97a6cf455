-- Keeps statuses and joins them to their replies, by the platform's id or, while a reply's outcome is
-- unknown, by our key; also while it is pending, to be sent once more: then it is not. The failure of
-- an attempt ends no later one. A status only raises a reply: failed, delivered, read. The lane goes on
-- if we did not know whether the reply was sent, or if it waits until its last sent reply is delivered.
-- Where the status says no more than that a reply was sent, the next one waits for its phone_wait. A wait
-- that ended in vain is forgotten at any of its replies' statuses. It is not one statement
-- with the locking: its snapshot must show what others wrote while they held the lanes.
-- The time of a status is that of the transaction that kept it: stop_lanes takes only new ones.
-- items: as in lock_status_lanes. Rows: ord; joined, kept (no such reply yet), repeated (likewise, and the
-- status was kept before) or busy (lane locked elsewhere); and the lane, if it is due now.
-- Indexes: status_once, reply_platform_id, reply_in_doubt_key, reply_claimed, reply_sequence_once, conversation
-- primary key.
WITH items AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(items)s::json)
         AS i(ord integer, channel_id bigint, platform_id text, key uuid, status text, error text)),
named AS MATERIALIZED (
  SELECT i.ord, i.platform_id, i.status, i.error, r.id AS reply_id, r.conversation_id, r.sequence, r.phone_wait,
         r.status IN ('unknown', 'pending') AS in_doubt,
         r.conversation_id = ANY (string_to_array(current_setting('app.locked'), ',')::bigint[]) AS ours
    FROM items i
   CROSS JOIN LATERAL (SELECT id, conversation_id, sequence, status, phone_wait FROM reply
                        WHERE channel_id = i.channel_id AND platform_id = i.platform_id AND platform_id <> ''
                        UNION ALL SELECT * FROM (
                               SELECT id, conversation_id, sequence, status, phone_wait FROM reply WHERE channel_id = i.channel_id AND key = i.key
                                  AND settled_at IS NULL AND claimed_by IS NULL AND intent_at IS NOT NULL OFFSET 0) d WHERE d.status IN ('unknown', 'pending')
                        OFFSET 0) r
   WHERE r.status <> 'pending' OR i.status <> 'failed'),
told AS MATERIALIZED (
  SELECT i.ord, n.lane,
         CASE WHEN n.ours THEN 'joined'
              WHEN n.ord IS NULL AND NOT EXISTS (
                   -- Its result may be written just now, by a transaction that does not see this failure.
                   SELECT FROM reply r WHERE i.status = 'failed' AND r.status = 'sending' AND r.channel_id = i.channel_id AND r.key = i.key
                      AND r.conversation_id <> ALL (string_to_array(current_setting('app.locked'), ',')::bigint[]) OFFSET 0) THEN 'kept'
              ELSE 'busy' END AS outcome
    FROM items i LEFT JOIN (SELECT ord, bool_and(ours) AS ours, min(conversation_id) AS lane FROM named GROUP BY ord) n USING (ord)),
kept AS (
  INSERT INTO status (channel_id, platform_id, key, status, error, received_at)
  SELECT DISTINCT ON (channel_id, platform_id, status) channel_id, platform_id, key, status, coalesce(error, ''), now()
    FROM items JOIN told USING (ord) WHERE outcome <> 'busy'
   ORDER BY channel_id, platform_id, status, ord
  ON CONFLICT (channel_id, platform_id, status) DO NOTHING
  RETURNING channel_id, platform_id, status),
said AS MATERIALIZED (
  SELECT reply_id, bool_or(status = 'read') AS read, bool_or(status IN ('delivered', 'read')) AS arrived,
         bool_or(status = 'failed') AS failed, max(error) FILTER (WHERE status = 'failed') AS error, max(platform_id) AS platform_id
    FROM named WHERE ours GROUP BY reply_id),
joined AS (
  UPDATE reply r
     SET delivered = CASE WHEN s.read THEN 'read' WHEN s.arrived AND r.delivered = 'none' THEN 'delivered' ELSE r.delivered END,
         platform_id = CASE WHEN r.platform_id = '' THEN s.platform_id ELSE r.platform_id END,
         settled_at = coalesce(r.settled_at, now()),
         status = CASE WHEN s.arrived THEN 'sent' WHEN s.failed AND r.delivered = 'none' THEN 'failed'
                       WHEN r.status IN ('unknown', 'pending') THEN 'sent' ELSE r.status END,
         error = CASE WHEN s.arrived AND r.status = 'failed' THEN ''
                      WHEN s.failed AND NOT s.arrived AND r.delivered = 'none' THEN coalesce(nullif(s.error, ''), r.error)
                      ELSE r.error END
    FROM said s
   WHERE r.id = s.reply_id AND r.id = ANY (ARRAY(SELECT reply_id FROM said)) AND r.status IN ('sent', 'unknown', 'pending', 'failed')),
freed AS MATERIALIZED (
  -- doubt: the reply that was in doubt; seen: the last one that was delivered, read or failed.
  SELECT c.id, n.doubt, CASE WHEN n.doubt > coalesce(n.seen, 0) THEN now() + make_interval(secs => n.phone_wait) END AS phone_until
    FROM (SELECT conversation_id, max(sequence) FILTER (WHERE in_doubt) AS doubt, max(phone_wait) FILTER (WHERE in_doubt) AS phone_wait,
                 max(sequence) FILTER (WHERE status IN ('delivered', 'read', 'failed')) AS seen
            FROM named WHERE ours GROUP BY conversation_id) n
   CROSS JOIN LATERAL (SELECT id, phone_until FROM conversation WHERE id = n.conversation_id LIMIT 1) c
   WHERE n.doubt IS NOT NULL
      OR n.seen IS NOT NULL AND c.phone_until IS NOT NULL AND (c.phone_until <= now() OR NOT EXISTS (
         SELECT FROM reply b WHERE b.conversation_id = c.id AND b.sequence > n.seen AND b.status = 'sent' OFFSET 0))),
lanes AS (
  UPDATE conversation c
     SET phone_until = f.phone_until,
         send_due_at = CASE WHEN f.doubt IS NULL AND (c.phone_until <= now() OR c.send_due_at IS NULL) THEN c.send_due_at
                            ELSE greatest(now(), f.phone_until) END
    FROM freed f
   WHERE c.id = f.id AND c.id = ANY (ARRAY(SELECT id FROM freed))
  RETURNING c.id, c.send_due_at <= now() AS due)
SELECT t.ord,
       CASE WHEN t.outcome = 'kept' AND (i.channel_id, i.platform_id, i.status) NOT IN (SELECT * FROM kept) THEN 'repeated' ELSE t.outcome END,
       l.id
  FROM told t JOIN items i USING (ord)
  LEFT JOIN lanes l ON l.id = t.lane AND l.due
 ORDER BY t.ord
