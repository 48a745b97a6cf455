-- Skips the messages that a person answered, with that person's name, before the lane is handed
-- back. Nothing is skipped from the first message on that nobody answered, that staff put back into
-- the lane (replay_of), or that came after the page was shown. Where it finds nothing to skip
-- although the page showed messages, app.locked is emptied: nobody answered, and the caller refuses.
-- A message counts as answered if a person's reply was written after it came and was not refused;
-- the newest 300 replies are read. One that join_lanes copied may have been answered in its old
-- lane.
-- seen_last: the newest number that the page showed. One row: how many are skipped, first;
-- app.skipped holds the number for audit.sql.
-- Indexes: primary keys of conversation, message and auth_user, message_sequence_once,
-- reply_sequence_once.
WITH lane AS (
  SELECT c.id, c.next_sequence, c.last_sequence FROM conversation c
   WHERE c.id = nullif(current_setting('app.locked', true), '')::bigint),
pending AS MATERIALIZED (
  SELECT m.id, m.sequence, m.received_at, m.conversation_id, h.conversation_id AS old_lane, h.received_at AS came_at,
         m.replay_of IS NULL OR h.conversation_id <> m.conversation_id AND h.replay_of IS NULL AS asks
    FROM lane JOIN message m ON m.conversation_id = lane.id AND m.sequence >= lane.next_sequence AND m.status = 'pending'
    LEFT JOIN message h ON h.id = m.replay_of),
answers AS MATERIALIZED (
  SELECT r.conversation_id, r.created_at, coalesce(u.username, 'a person') AS username
    FROM (SELECT id FROM lane UNION SELECT old_lane FROM pending) l
   CROSS JOIN LATERAL (SELECT * FROM reply WHERE conversation_id = l.id ORDER BY sequence DESC LIMIT 300) r
    LEFT JOIN auth_user u ON u.id = r.staff_id
   WHERE r.author = 'person' AND r.message_id IS NULL AND r.status IN ('pending', 'sending', 'sent', 'unknown')),
waiting AS MATERIALIZED (
  SELECT p.id, p.sequence, p.asks AND p.sequence <= %(seen_last)s AS shown,
         (SELECT a.username FROM answers a
           WHERE a.created_at >= CASE a.conversation_id WHEN p.conversation_id THEN p.received_at WHEN p.old_lane THEN p.came_at END
           ORDER BY a.created_at LIMIT 1) AS answered_by
    FROM pending p),
kept AS (
  SELECT coalesce((SELECT min(w.sequence) FROM waiting w WHERE NOT (w.shown AND w.answered_by IS NOT NULL)),
                  lane.last_sequence + 1) AS sequence
    FROM lane),
unanswered AS (
  SELECT FROM kept, waiting w
   WHERE w.sequence = kept.sequence AND w.shown AND w.sequence = (SELECT min(sequence) FROM waiting)),
skipped AS (
  UPDATE message m SET status = 'skipped', settled_at = now(), note = concat_ws('; ', nullif(m.note, ''), 'answered by ' || w.answered_by)
    FROM waiting w, kept
   WHERE m.id = w.id AND w.sequence < kept.sequence)
SELECT n.number, set_config('app.skipped', n.number::text, true),
       set_config('app.locked', coalesce((SELECT id::text FROM lane WHERE NOT EXISTS (SELECT FROM unanswered)), ''), true)
  FROM (SELECT count(*) AS number FROM waiting w, kept WHERE w.sequence < kept.sequence) n
