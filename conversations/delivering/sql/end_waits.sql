-- Makes the waiting next replies of a channel that works again due now, longest wait first; the
-- sweeper finds them. Locked lanes (conversations) are skipped, and so are replies that any sender
-- tried a moment ago.
-- channel; before: only lanes due earlier than this; tried: only replies whose last attempt is more
-- seconds ago than this; lanes: how many at most.
-- Row: heads made due, lanes examined, the earliest send_due_at among these.
-- Indexes: conversation_send_due (backwards), reply_sequence_once, primary keys.
WITH held AS MATERIALIZED (
  SELECT c.id, c.next_reply_sequence, c.send_due_at FROM conversation c
   WHERE c.channel_id = %(channel)s AND c.send_due_at > now() + interval '1 s' AND c.send_due_at < %(before)s
   ORDER BY c.send_due_at DESC LIMIT %(lanes)s FOR NO KEY UPDATE SKIP LOCKED),
heads AS MATERIALIZED (
  SELECT h.id, r.id AS reply_id FROM held h
   CROSS JOIN LATERAL (SELECT * FROM reply p WHERE p.conversation_id = h.id AND p.sequence = h.next_reply_sequence LIMIT 1) r
   WHERE r.status = 'pending' AND r.attempts > 0 AND r.not_before > now()
     AND r.intent_at < now() - make_interval(secs => %(tried)s)),
due AS (
  UPDATE reply SET not_before = now()
   WHERE id = ANY (ARRAY(SELECT reply_id FROM heads)) AND status = 'pending' AND not_before > now()),
lanes AS (
  UPDATE conversation SET send_due_at = now() WHERE id = ANY (ARRAY(SELECT id FROM heads)))
SELECT (SELECT count(*) FROM heads), count(*), min(send_due_at) FROM held
