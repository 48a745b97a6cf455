-- Storing looks for the message in the snapshot from before the wait for its lane.
  SELECT i.ord, c.id AS conversation_id, c.last_sequence, c.wait_until, c.last_key,
         decode(i.identity, 'hex') AS identity, decode(i.content_hash, 'hex') AS content_hash
    FROM items i
   CROSS JOIN LATERAL (SELECT l.id, l.last_sequence, l.wait_until, l.last_key FROM conversation l
                        WHERE l.channel_id = i.channel_id AND l.chat = i.lane_chat AND l."user" = i.lane_user
                        LIMIT 1 FOR NO KEY UPDATE) c
