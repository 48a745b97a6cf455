-- Reads how far behind we are. No arguments. One row: living workers by kind, age in seconds of the
-- lane that is due longest, age of the oldest reply of the lanes due for sending, rows of pause
-- that stop something, unsettled quarantine. The sweeper moves due times on, so the age of the lane
-- that is due longest is small while the sweeper works.
SELECT
  (SELECT coalesce(jsonb_object_agg(kind, number), '{}') FROM (
     SELECT kind, count(*) AS number FROM worker
      WHERE NOT dead AND beat_at > now() - interval '10 s' GROUP BY kind) living),
  (SELECT greatest(0, round(extract(epoch FROM now() - min(lane.due_at)), 1))::float FROM channel c
     CROSS JOIN LATERAL (SELECT due_at FROM conversation WHERE channel_id = c.id AND due_at IS NOT NULL
                          ORDER BY due_at LIMIT 1) lane
    WHERE c.active),
  (SELECT round(extract(epoch FROM now() - min(reply.created_at)), 1)::float FROM channel c
     CROSS JOIN LATERAL (SELECT id, next_reply_sequence FROM conversation
                          WHERE channel_id = c.id AND send_due_at IS NOT NULL
                          ORDER BY send_due_at LIMIT 20) lane
     CROSS JOIN LATERAL (SELECT created_at FROM reply
                          WHERE conversation_id = lane.id AND sequence = lane.next_reply_sequence LIMIT 1) reply
    WHERE c.active),
  (SELECT count(*) FROM pause WHERE since IS NOT NULL),
  (SELECT count(*) FROM (SELECT 1 FROM quarantine WHERE settled_at IS NULL LIMIT 10000) open)
