-- Counts the messages that wait in a lane and that a person answered: what hand_back would skip, by
-- the same rule.
-- conversation: id. One row: messages that wait, the leading ones that were answered, who wrote
-- last.
-- Indexes: conversation primary key, message_sequence_once, reply_sequence_once, auth_user primary
-- key.
WITH answers AS MATERIALIZED (
  SELECT r.created_at, coalesce(u.username, 'a person') AS username
    FROM (SELECT * FROM reply WHERE conversation_id = %(conversation)s ORDER BY sequence DESC LIMIT 300) r
    LEFT JOIN auth_user u ON u.id = r.staff_id
   WHERE r.author = 'person' AND r.message_id IS NULL AND r.status IN ('pending', 'sending', 'sent', 'unknown')),
waiting AS MATERIALIZED (
  SELECT m.sequence,
         m.replay_of IS NULL AND EXISTS (SELECT FROM answers a WHERE a.created_at >= m.received_at) AS answered
    FROM conversation c
    JOIN message m ON m.conversation_id = c.id AND m.sequence >= c.next_sequence AND m.status = 'pending'
   WHERE c.id = %(conversation)s)
SELECT count(*),
       count(*) FILTER (WHERE w.sequence < coalesce((SELECT min(sequence) FROM waiting WHERE NOT answered), w.sequence + 1)),
       (SELECT username FROM answers ORDER BY created_at DESC LIMIT 1)
  FROM waiting w
