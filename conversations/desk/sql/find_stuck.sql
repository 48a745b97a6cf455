-- Finds conversations that need a person, or whose work is due for longer than `late`; those that
-- wait longest first.
-- A bot that failed once is not counted (attempts > 1). Each search reads 2,000 rows at most, so
-- that the page stays fast.
-- channels: bigint[]; stopped: bigint[] of channels whose handling waits for one cause (it is shown
-- once, not per lane); unsendable: likewise for sending; late: seconds; limit. Rows: id, since.
-- Indexes: conversation_for_staff, conversation_due, conversation_send_due, message_parked,
-- reply_for_staff.
WITH found AS (
  (SELECT c.id, coalesce(c.paused_at, m.received_at, c.created_at) AS since
     FROM conversation c
     LEFT JOIN LATERAL (SELECT received_at FROM message WHERE conversation_id = c.id AND sequence = c.next_sequence LIMIT 1) m ON true
     LEFT JOIN LATERAL (SELECT author, created_at FROM reply WHERE conversation_id = c.id AND sequence = c.last_reply_sequence LIMIT 1) r
            ON true
     LEFT JOIN LATERAL (SELECT received_at FROM message WHERE conversation_id = c.id AND sequence = c.last_sequence LIMIT 1) n ON true
    WHERE (c.blocked OR c.mode = 'human' OR c.paused_at IS NOT NULL OR c.attempts > 0) AND c.channel_id = ANY (%(channels)s::bigint[])
      AND (c.blocked OR c.paused_at IS NOT NULL OR c.attempts > 1
           OR (c.mode = 'human' AND (r.author IS DISTINCT FROM 'person' OR n.received_at > r.created_at)))
    LIMIT 2000)
  UNION ALL
  (SELECT c.id, c.due_at FROM unnest(%(channels)s::bigint[]) AS ch(id)
    CROSS JOIN LATERAL (SELECT id, due_at FROM conversation WHERE channel_id = ch.id
                           AND due_at < now() - make_interval(secs => %(late)s) ORDER BY due_at LIMIT %(limit)s) c
    WHERE ch.id <> ALL (%(stopped)s::bigint[]))
  UNION ALL
  (SELECT c.id, c.send_due_at FROM unnest(%(channels)s::bigint[]) AS ch(id)
    CROSS JOIN LATERAL (SELECT id, send_due_at FROM conversation WHERE channel_id = ch.id
                           AND send_due_at < now() - make_interval(secs => %(late)s) ORDER BY send_due_at LIMIT %(limit)s) c
    WHERE ch.id <> ALL (%(unsendable)s::bigint[]))
  UNION ALL
  (SELECT m.conversation_id, m.settled_at FROM message m JOIN conversation c ON c.id = m.conversation_id
    WHERE m.parked AND c.channel_id = ANY (%(channels)s::bigint[]) LIMIT 2000)
  UNION ALL
  (SELECT r.conversation_id, coalesce(r.settled_at, r.intent_at, r.created_at) FROM reply r
    WHERE r.status IN ('parked', 'unknown', 'failed') AND (r.status <> 'unknown' OR r.not_before IS NULL)
      AND r.channel_id = ANY (%(channels)s::bigint[]) LIMIT 2000))
SELECT id, min(since) AS since FROM found GROUP BY id ORDER BY since LIMIT %(limit)s
