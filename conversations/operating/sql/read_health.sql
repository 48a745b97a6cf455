-- Reads how far behind we are. No arguments. One row: living workers by kind, age in seconds of the
-- oldest message that should be moving, the same of the oldest reply, rows of pause that stop
-- something, unsettled quarantine.
-- A head should be moving from the time when it came, when the one before it was settled, or when
-- its retry time came, whichever is last. Lanes of a person, of a pause or of a wait for staff have
-- no due time.
-- A backlog makes the answer inexact, not slow: channels in any order, of each the 20 lanes that are
-- due first and the first 20 of those that the sweeper has claimed, 2,000 lanes in all. Storing sets
-- a due time 3 s ahead, a claim 10 s, and only a retry more.
-- Indexes: conversation_due, conversation_send_due, message_sequence_once, reply_sequence_once,
-- bucket_once.
WITH stops AS MATERIALIZED (SELECT scope, target, stops FROM pause WHERE since IS NOT NULL),
channels AS MATERIALIZED (
  SELECT id,
         NOT EXISTS (SELECT FROM stops s WHERE s.stops = 'handling' AND (s.scope, s.target) IN
                     (('bot', bot), ('channel', id::text), ('tenant', tenant_id::text))) AS handles,
         NOT EXISTS (SELECT FROM stops s WHERE s.stops = 'sending' AND (s.scope, s.target) IN
                     (('channel', id::text), ('tenant', tenant_id::text))) AS sends
    FROM channel WHERE active ORDER BY random())
SELECT
  (SELECT coalesce(jsonb_object_agg(kind, number), '{}') FROM (
     SELECT kind, count(*) AS number FROM worker
      WHERE NOT dead AND beat_at > now() - interval '10 s' GROUP BY kind) living),
  (SELECT greatest(0, round(extract(epoch FROM now() - min(
            CASE WHEN lane.next_sequence > lane.last_sequence THEN lane.wait_until
                 ELSE greatest(head.received_at, before.settled_at, lane.not_before) END)), 1))::float
     FROM (SELECT lane.* FROM channels c
            CROSS JOIN LATERAL (
              (SELECT id, next_sequence, last_sequence, not_before, wait_until FROM conversation
                WHERE channel_id = c.id AND due_at <= now() + interval '3.1 s' ORDER BY due_at LIMIT 20)
              UNION ALL
              (SELECT id, next_sequence, last_sequence, not_before, wait_until FROM conversation
                WHERE channel_id = c.id AND due_at > now() + interval '3.1 s' AND due_at <= now() + interval '10 s'
                ORDER BY due_at LIMIT 20)) lane
            WHERE c.handles LIMIT 2000) lane
     LEFT JOIN LATERAL (SELECT received_at FROM message
                         WHERE conversation_id = lane.id AND sequence = lane.next_sequence LIMIT 1) head ON true
     LEFT JOIN LATERAL (SELECT settled_at FROM message
                         WHERE conversation_id = lane.id AND sequence = lane.next_sequence - 1 LIMIT 1) before ON true),
  -- One that is being sent should be settled when the deadline of its call (33 s) is over.
  (SELECT greatest(0, round(extract(epoch FROM now() - min(
            CASE WHEN head.status = 'sending' THEN head.intent_at + interval '33 s'
                 ELSE greatest(head.created_at, before.settled_at, head.not_before, bucket.blocked_until) END)), 1))::float
     FROM (SELECT lane.* FROM channels c
            CROSS JOIN LATERAL (
              (SELECT id, channel_id, chat, next_reply_sequence FROM conversation
                WHERE channel_id = c.id AND send_due_at <= now() + interval '3.1 s' ORDER BY send_due_at LIMIT 20)
              UNION ALL
              (SELECT id, channel_id, chat, next_reply_sequence FROM conversation
                WHERE channel_id = c.id AND send_due_at > now() + interval '3.1 s' AND send_due_at <= now() + interval '10 s'
                ORDER BY send_due_at LIMIT 20)) lane
            WHERE c.sends LIMIT 2000) lane
    CROSS JOIN LATERAL (SELECT status, created_at, not_before, intent_at FROM reply
                         WHERE conversation_id = lane.id AND sequence = lane.next_reply_sequence LIMIT 1) head
     LEFT JOIN LATERAL (SELECT settled_at FROM reply
                         WHERE conversation_id = lane.id AND sequence = lane.next_reply_sequence - 1 LIMIT 1) before ON true
     LEFT JOIN LATERAL (SELECT max(b.blocked_until) AS blocked_until
                          FROM unnest(ARRAY['channel', 'chat:' || lane.chat, 'group:' || lane.chat]) AS of(key)
                         CROSS JOIN LATERAL (SELECT blocked_until FROM bucket WHERE channel_id = lane.channel_id
                                                AND key = of.key LIMIT 1) b) bucket ON true),
  (SELECT count(*) FROM stops),
  (SELECT count(*) FROM (SELECT 1 FROM quarantine WHERE settled_at IS NULL LIMIT 10000) open)
