-- Counts the messages that wait in a lane and that a person answered: what hand_back would skip, by
-- the same rule.
-- conversation: id. One row: messages that wait, the leading ones that were answered, who wrote
-- last.
-- Indexes: primary keys of conversation, message and auth_user, message_sequence_once,
-- reply_sequence_once.
WITH pending AS MATERIALIZED (
  SELECT m.sequence, m.received_at, m.conversation_id, h.conversation_id AS old_lane, h.received_at AS came_at,
         m.replay_of IS NULL OR h.conversation_id <> m.conversation_id AND h.replay_of IS NULL AS asks
    FROM conversation c
    JOIN message m ON m.conversation_id = c.id AND m.sequence >= c.next_sequence AND m.status = 'pending'
    LEFT JOIN message h ON h.id = m.replay_of
   WHERE c.id = %(conversation)s),
answers AS MATERIALIZED (
  SELECT r.conversation_id, r.created_at, coalesce(u.username, 'a person') AS username
    FROM (SELECT %(conversation)s AS id UNION SELECT old_lane FROM pending) l
   CROSS JOIN LATERAL (SELECT * FROM reply WHERE conversation_id = l.id ORDER BY sequence DESC LIMIT 300) r
    LEFT JOIN auth_user u ON u.id = r.staff_id
   WHERE r.author = 'person' AND r.message_id IS NULL AND r.status IN ('pending', 'sending', 'sent', 'unknown')),
waiting AS MATERIALIZED (
  SELECT p.sequence,
         p.asks AND EXISTS (SELECT FROM answers a WHERE a.created_at >=
             CASE a.conversation_id WHEN p.conversation_id THEN p.received_at WHEN p.old_lane THEN p.came_at END) AS answered
    FROM pending p)
SELECT count(*),
       count(*) FILTER (WHERE w.sequence < coalesce((SELECT min(sequence) FROM waiting WHERE NOT answered), w.sequence + 1)),
       (SELECT username FROM answers ORDER BY created_at DESC LIMIT 1)
  FROM waiting w
