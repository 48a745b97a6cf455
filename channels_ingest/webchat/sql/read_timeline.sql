-- Reads what a visitor's page shows after its cursor, oldest first. No row: nothing was said yet.
-- Arguments: newest message and newest reply that the page has (0: none, then the newest `most` of
--   each), most, bytes of each, channel, visitor (as chat), visitor (as user).
-- Result: mode, busy (an answer is on its way), halted (the bot is stopped in this conversation),
--   colleague (first name of whoever took the conversation; null: nobody), then one item or nulls:
--   type, sequence, id, time, text or body, pressed button, reply of that button, files, author.
WITH asked AS (
  SELECT %s::bigint AS message, %s::bigint AS reply, %s::bigint AS most, %s::bigint AS bytes
), lane AS (
  SELECT id, mode, last_sequence, last_reply_sequence,
         (mode = 'bot' AND next_sequence <= last_sequence) OR next_reply_sequence <= last_reply_sequence AS busy,
         mode = 'bot' AND (paused_at IS NOT NULL OR blocked) AS halted
    FROM conversation
   WHERE channel_id = %s AND chat = %s AND "user" = %s
), colleague AS (
  SELECT coalesce(d.assignee_id, r.staff_id) AS staff_id
    FROM lane
    LEFT JOIN LATERAL (SELECT assignee_id FROM desk WHERE conversation_id = lane.id LIMIT 1) d ON true
    LEFT JOIN LATERAL (SELECT p.staff_id FROM reply p WHERE p.conversation_id = lane.id
                          AND p.sequence = lane.last_reply_sequence AND p.author = 'person' LIMIT 1) r ON true
   WHERE lane.mode = 'human'
)
SELECT lane.mode, lane.busy, lane.halted,
       (SELECT u.first_name FROM colleague JOIN auth_user u ON u.id = colleague.staff_id) AS colleague,
       item.type, item.sequence, item.id, item.at, item.body, item.choice, item.target, item.files, item.author
  FROM lane CROSS JOIN asked LEFT JOIN LATERAL (
   -- before: bytes of the items of its type that come first. From the cursor on these are the older
   -- ones: what does not fit comes with the next poll. Without a cursor they are the newer ones.
   SELECT i.*, sum(octet_length(i.body::text) + coalesce(octet_length(i.files::text), 0) + 200) OVER (PARTITION BY i.type ORDER BY i.sequence * i.way
                                                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
     FROM (
    (SELECT 'message' AS type, m.sequence, m.platform_id AS id, m.received_at AS at, to_jsonb(m.text) AS body,
            m.payload ->> 'payload' AS choice, m.payload ->> 'target' AS target, m.payload -> 'attachments' AS files, '' AS author,
            CASE asked.message WHEN 0 THEN -1 ELSE 1 END AS way
       FROM message m
      WHERE m.conversation_id = lane.id
        AND m.sequence > CASE asked.message WHEN 0 THEN lane.last_sequence - asked.most ELSE asked.message END
        AND m.kind IN ('message', 'button') AND m.replay_of IS NULL
      ORDER BY m.sequence LIMIT asked.most)
    UNION ALL
    (SELECT 'reply', r.sequence, r.platform_id, r.settled_at, r.body, NULL, NULL, NULL, r.author, CASE asked.reply WHEN 0 THEN -1 ELSE 1 END
       FROM reply r
      WHERE r.conversation_id = lane.id AND r.status = 'sent'
        AND r.sequence > CASE asked.reply WHEN 0 THEN lane.last_reply_sequence - asked.most ELSE asked.reply END
      ORDER BY r.sequence LIMIT asked.most)
     ) i
  ) item ON coalesce(item.before, 0) < asked.bytes
 ORDER BY item.at, item.type, item.sequence
