-- What a visitor's page shows after its cursor, in the order of time. No row: nothing was said yet.
-- Arguments: newest message and reply that the page has (0: none yet, then the newest `most`), most, channel, visitor (as chat and as user).
-- Result: mode, busy (something is on its way to the visitor), then one item or nulls:
--         type, sequence, id, time, text or body, pressed button, reply that it belongs to, author.
WITH asked AS (
  SELECT %s::bigint AS message, %s::bigint AS reply, %s::bigint AS most
), lane AS (
  SELECT id, mode, last_sequence, last_reply_sequence,
         (mode = 'bot' AND paused_at IS NULL AND NOT blocked AND next_sequence <= last_sequence)
           OR next_reply_sequence <= last_reply_sequence AS busy
    FROM conversation
   WHERE channel_id = %s AND chat = %s AND "user" = %s
)
SELECT lane.mode, lane.busy, item.*
  FROM lane CROSS JOIN asked LEFT JOIN LATERAL (
    (SELECT 'message' AS type, m.sequence, m.platform_id AS id, m.received_at AS at, to_jsonb(m.text) AS body,
            m.payload ->> 'payload' AS choice, m.payload ->> 'target' AS target, '' AS author
       FROM message m
      WHERE m.conversation_id = lane.id
        AND m.sequence > CASE asked.message WHEN 0 THEN lane.last_sequence - asked.most ELSE asked.message END
        AND m.kind IN ('message', 'button') AND m.replay_of IS NULL
      ORDER BY m.sequence LIMIT asked.most)
    UNION ALL
    (SELECT 'reply', r.sequence, r.platform_id, r.settled_at, r.body, NULL, NULL, r.author
       FROM reply r
      WHERE r.conversation_id = lane.id AND r.status = 'sent'
        AND r.sequence > CASE asked.reply WHEN 0 THEN lane.last_reply_sequence - asked.most ELSE asked.reply END
      ORDER BY r.sequence LIMIT asked.most)
  ) item ON true
 ORDER BY item.at, item.type, item.sequence
