-- Measures where the newest messages and replies spent their time: means in seconds, over the
-- newest 200 of each that are not older than five minutes.
-- No arguments. One row, see delays.PARTS; null where there was none. A reply that waits counts
-- with its wait so far; one behind an unsettled reply of its lane does not count. Indexes: primary
-- keys, turn_of_conversation, reply_sequence_once.
SELECT handling.lane, handling.worker, handling.bot, delivering.sender, delivering.platform
  FROM (SELECT avg(extract(epoch FROM free.at - m.received_at))::float AS lane,
               avg(greatest(0, extract(epoch FROM t.started_at - free.at)))::float AS worker,
               avg(extract(epoch FROM t.ended_at - t.started_at))::float AS bot
          FROM (SELECT * FROM turn ORDER BY id DESC LIMIT 200) t
         CROSS JOIN LATERAL (SELECT * FROM message h WHERE h.id = t.message_id LIMIT 1) m
          LEFT JOIN LATERAL (SELECT * FROM turn b WHERE b.conversation_id = t.conversation_id AND b.id < t.id
                              ORDER BY b.id DESC LIMIT 1) before ON true
         CROSS JOIN LATERAL (SELECT greatest(m.received_at, before.ended_at,
                            CASE WHEN m.release_at < t.started_at THEN m.release_at END)) AS free(at)
         WHERE t.attempt = 1 AND t.ended_at > now() - interval '5 min') handling,
       (SELECT avg(extract(epoch FROM coalesce(r.intent_at, now()) - greatest(r.created_at, before.settled_at)))::float AS sender,
               avg(extract(epoch FROM r.settled_at - r.intent_at))::float AS platform
          FROM (SELECT * FROM reply ORDER BY id DESC LIMIT 200) r
          LEFT JOIN LATERAL (SELECT * FROM reply b WHERE b.conversation_id = r.conversation_id AND b.sequence = r.sequence - 1
                              LIMIT 1) before ON true
         WHERE (r.status = 'sent' AND r.attempts = 1 OR r.status = 'pending' AND r.attempts = 0)
           AND coalesce(before.status, 'sent') NOT IN ('pending', 'sending', 'unknown')
           AND r.created_at > now() - interval '5 min') delivering
