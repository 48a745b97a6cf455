-- Writes a batch of turns: each lane's new state, its replies, the message's status and the next
-- number. Each only if (compare-and-set) the message is still next, its status, the lane's epoch
-- and attempts are as they were read, and the mode is still bot. A lane (conversation) that changed
-- is left alone ("moved"). lock_ids has locked the lanes; those that it could not lock are "busy".
-- items: json list, see verdicts.Verdict. Rows: ord, result (committed, moved, busy), whether more
-- messages are pending, whether to wake a sender: not if older replies wait, since a sender or a
-- retry time takes care of these, and the new ones follow them.
-- Indexes: primary keys, message_sequence_once, reply_sequence_once.
WITH items AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(items)s::json) AS i(
         ord integer, id bigint, channel_id bigint, message_id bigint, sequence bigint, epoch bigint, attempts smallint,
         expect text, status text, note text, advance integer, attempts_after smallint, delay float, mode text,
         epoch_step integer, blocked boolean, suspect boolean, state jsonb, asked integer, bot text, version integer, replies json, turn json)),
ours AS MATERIALIZED (
  SELECT i.*, c.last_reply_sequence, c.next_sequence < c.last_sequence AS behind,
         CASE WHEN c.next_reply_sequence <= c.last_reply_sequence THEN EXISTS (
              SELECT FROM reply p WHERE p.conversation_id = c.id AND p.sequence >= c.next_reply_sequence
                 AND p.status IN ('pending', 'sending', 'unknown') OFFSET 0) ELSE false END AS speaking
    FROM items i
   CROSS JOIN LATERAL (SELECT * FROM conversation l
                        WHERE l.id = i.id AND l.id = ANY (string_to_array(current_setting('app.locked'), ',')::bigint[])
                          AND l.next_sequence = i.sequence AND l.epoch = i.epoch AND l.attempts = i.attempts
                          AND l.mode = 'bot' LIMIT 1) c
   CROSS JOIN LATERAL (SELECT FROM message h WHERE h.id = i.message_id AND h.conversation_id = i.id
                          AND h.sequence = i.sequence AND h.status = i.expect LIMIT 1) m),
marks AS (
  UPDATE message m SET status = o.status, settled_at = now(), note = coalesce(o.note, m.note)
    FROM ours o WHERE m.id = o.message_id AND o.status <> o.expect AND m.id = ANY (ARRAY(SELECT message_id FROM ours))),
states AS (
  INSERT INTO conversation_state AS s (conversation_id, state, bot, version, offered)
  SELECT o.id, o.state, coalesce(o.bot, ''), coalesce(o.version, 1), o.last_reply_sequence + o.asked FROM ours o WHERE o.state IS NOT NULL
  ON CONFLICT (conversation_id) DO UPDATE
     SET state = excluded.state, bot = excluded.bot, version = excluded.version, offered = excluded.offered, updated_at = now()),
said AS MATERIALIZED (
  SELECT o.ord, o.id, o.channel_id, o.message_id, r.value ->> 'author' AS author, (r.value -> 'body')::jsonb AS body,
         o.last_reply_sequence + row_number() OVER (PARTITION BY o.id ORDER BY r.ordinality) AS sequence
    FROM ours o CROSS JOIN LATERAL json_array_elements(o.replies) WITH ORDINALITY AS r
   WHERE o.replies IS NOT NULL
     -- sorry_text: once an hour at most
     AND (r.value ->> 'author' <> 'system' OR NOT EXISTS (
          SELECT FROM reply p WHERE p.conversation_id = o.id AND p.sequence > o.last_reply_sequence - 100
             AND p.author = 'system' AND p.created_at > now() - interval '1 hour' OFFSET 0))),
replies AS (
  INSERT INTO reply (conversation_id, channel_id, sequence, message_id, author, body)
  SELECT id, channel_id, sequence, message_id, author, body FROM said ORDER BY id, sequence),
turns AS (
  INSERT INTO turn (conversation_id, message_id, attempt, epoch, worker, outcome, started_at, bot,
                    error_type, error_place, error_text, state_before, log)
  SELECT o.id, o.message_id, o.attempts + 1, o.epoch, t.worker, t.outcome, now() - make_interval(secs => t.seconds), coalesce(o.bot, ''),
         coalesce(t.error_type, ''), coalesce(t.error_place, ''), coalesce(t.error_text, ''), t.state_before, t.log
    FROM ours o CROSS JOIN LATERAL json_to_record(o.turn)
         AS t(worker uuid, outcome text, seconds float, error_type text, error_place text, error_text text, state_before jsonb, log jsonb)
   WHERE o.turn IS NOT NULL),
lanes AS (
  UPDATE conversation c
     SET next_sequence = c.next_sequence + o.advance,
         attempts = o.attempts_after,
         not_before = now() + make_interval(secs => o.delay),
         mode = coalesce(o.mode, c.mode),
         epoch = c.epoch + coalesce(o.epoch_step, 0),
         blocked = coalesce(o.blocked, false),
         -- only a turn that fails keeps it
         suspect = (c.suspect OR coalesce(o.suspect, false)) AND o.advance = 0 AND o.status = 'pending',
         last_reply_sequence = c.last_reply_sequence + coalesce(s.added, 0),
         send_due_at = CASE WHEN s.added > 0 THEN
             lane_send_due_at(c.next_reply_sequence, c.last_reply_sequence, c.send_due_at,
                              greatest(now() + interval '3 s', c.phone_until))
             ELSE c.send_due_at END,
         due_at = lane_due_at(coalesce(o.mode, c.mode), c.paused_at, coalesce(o.blocked, false), c.next_sequence + o.advance,
                              c.last_sequence, now() + make_interval(secs => o.delay), c.wait_until,
                              now() + CASE WHEN o.delay IS NULL THEN interval '3 s' ELSE interval '0 s' END)
    FROM ours o LEFT JOIN (SELECT id, count(*) AS added FROM said GROUP BY id) s USING (id)
   WHERE c.id = o.id AND c.id = ANY (ARRAY(SELECT id FROM ours)))
SELECT i.ord,
       CASE WHEN o.ord IS NOT NULL THEN 'committed'
            WHEN i.id = ANY (string_to_array(current_setting('app.locked'), ',')::bigint[]) THEN 'moved' ELSE 'busy' END,
       coalesce(o.behind, false), NOT o.speaking AND EXISTS (SELECT FROM said s WHERE s.ord = i.ord OFFSET 0)
  FROM items i LEFT JOIN ours o USING (ord)
