-- Reads how far behind we are. No arguments. One row: living workers by kind, age in seconds of the
-- oldest message that should be moving, the same of the oldest reply, rows of pause that stop
-- something, unsettled quarantine.
-- A head should be moving from the time when it came, when the one before it was settled, or when
-- its retry time came, whichever is last. Lanes of a person, of a pause or of a wait for staff have
-- no due time. A claim of the sweeper moves a due time at most 10 s ahead, so later ones are retries.
-- 100 lanes of each channel and 5,000 in all are read, those that are due longest first: a backlog
-- makes the answer inexact, not slow.
-- Indexes: conversation_due, conversation_send_due, message_sequence_once, reply_sequence_once.
WITH stops AS MATERIALIZED (SELECT scope, target, stops FROM pause WHERE since IS NOT NULL)
SELECT
  (SELECT coalesce(jsonb_object_agg(kind, number), '{}') FROM (
     SELECT kind, count(*) AS number FROM worker
      WHERE NOT dead AND beat_at > now() - interval '10 s' GROUP BY kind) living),
  (SELECT greatest(0, round(extract(epoch FROM now() - min(
            CASE WHEN lane.next_sequence > lane.last_sequence THEN lane.wait_until
                 ELSE greatest(head.received_at, before.settled_at, lane.not_before) END)), 1))::float
     FROM (SELECT lane.* FROM channel c
            CROSS JOIN LATERAL (SELECT id, next_sequence, last_sequence, not_before, wait_until FROM conversation
                                 WHERE channel_id = c.id AND due_at <= now() + interval '10 s'
                                 ORDER BY due_at LIMIT 100) lane
            WHERE c.active AND NOT EXISTS (SELECT FROM stops s WHERE s.stops = 'handling' AND (s.scope, s.target) IN
                  (('bot', c.bot), ('channel', c.id::text), ('tenant', c.tenant_id::text)))
            LIMIT 5000) lane
     LEFT JOIN LATERAL (SELECT received_at FROM message
                         WHERE conversation_id = lane.id AND sequence = lane.next_sequence LIMIT 1) head ON true
     LEFT JOIN LATERAL (SELECT settled_at FROM message
                         WHERE conversation_id = lane.id AND sequence = lane.next_sequence - 1 LIMIT 1) before ON true),
  -- One that is being sent should be settled when the deadline of its call (33 s) is over.
  (SELECT greatest(0, round(extract(epoch FROM now() - min(
            CASE WHEN head.status = 'sending' THEN head.intent_at + interval '33 s'
                 ELSE greatest(head.created_at, before.settled_at, head.not_before, bucket.blocked_until) END)), 1))::float
     FROM (SELECT lane.* FROM channel c
            CROSS JOIN LATERAL (SELECT id, channel_id, chat, next_reply_sequence FROM conversation
                                 WHERE channel_id = c.id AND send_due_at <= now() + interval '10 s'
                                 ORDER BY send_due_at LIMIT 100) lane
            WHERE c.active AND NOT EXISTS (SELECT FROM stops s WHERE s.stops = 'sending' AND (s.scope, s.target) IN
                  (('channel', c.id::text), ('tenant', c.tenant_id::text)))
            LIMIT 5000) lane
    CROSS JOIN LATERAL (SELECT status, created_at, not_before, intent_at FROM reply
                         WHERE conversation_id = lane.id AND sequence = lane.next_reply_sequence LIMIT 1) head
     LEFT JOIN LATERAL (SELECT settled_at FROM reply
                         WHERE conversation_id = lane.id AND sequence = lane.next_reply_sequence - 1 LIMIT 1) before ON true
     LEFT JOIN LATERAL (SELECT max(blocked_until) AS blocked_until FROM bucket
                         WHERE channel_id = lane.channel_id AND key IN (
                               '{lanes}:limit:' || lane.channel_id, '{lanes}:limit:' || lane.channel_id || ':chat:' || lane.chat,
                               '{lanes}:limit:' || lane.channel_id || ':group:' || lane.chat)) bucket ON true),
  (SELECT count(*) FROM stops),
  (SELECT count(*) FROM (SELECT 1 FROM quarantine WHERE settled_at IS NULL LIMIT 10000) open)
