-- Stores late replies of http bots with the next numbers of their lanes, which lock_late_replies
-- has locked. A reply whose key is stored already is a duplicate. In a lane where a person answers,
-- the replies are drafts: numbered and cancelled; otherwise the last one with choices becomes the
-- open question (fetch_heads). If no earlier reply waits, the head (the next reply to send) moves
-- past them. send_due_at is 3 s ahead: normally the wake is faster, and the sweeper finds the lane
-- only if the wake was lost.
-- items: json list of late_replies.LateItem. Rows: ord, verdict, conversation id. Verdicts: stored,
-- duplicate, unknown (no such turn, or join_lanes copied its message, and the bot is asked again),
-- early (its turn is not committed), busy (lane locked elsewhere).
-- Indexes: primary keys, reply_external_key_once.
WITH items AS MATERIALIZED (
  SELECT i.*, m.conversation_id, m.status AS message_status, i.parts -> 0 ->> 'key' AS key,
         m.conversation_id = ANY (string_to_array(current_setting('app.locked'), ',')::bigint[]) AS held
    FROM json_to_recordset(%(items)s::json) AS i(ord integer, channel_id bigint, message_id bigint, parts json)
    LEFT JOIN LATERAL (
         SELECT h.conversation_id, h.status FROM message h
          WHERE h.id = i.message_id
            AND (SELECT l.channel_id FROM conversation l WHERE l.id = h.conversation_id) = i.channel_id
            AND NOT (h.status = 'skipped' AND EXISTS (
                SELECT FROM message c WHERE c.identity = decode(md5('joined:' || h.id), 'hex') OFFSET 0))
          LIMIT 1) m ON true),
known AS MATERIALIZED (
  SELECT i.ord FROM items i
   WHERE EXISTS (SELECT FROM reply r WHERE r.channel_id = i.channel_id AND r.external_key = i.key OFFSET 0)),
fresh AS MATERIALIZED (
  SELECT DISTINCT ON (i.channel_id, i.key) i.* FROM items i
   WHERE i.held AND i.message_status NOT IN ('pending', 'waiting') AND NOT EXISTS (SELECT FROM known k WHERE k.ord = i.ord)
   ORDER BY i.channel_id, i.key, i.ord),
parts AS MATERIALIZED (
  SELECT f.conversation_id, f.channel_id, f.message_id, p.value ->> 'key' AS key, (p.value -> 'body')::jsonb AS body,
         c.mode = 'human' AS draft,
         c.last_reply_sequence + row_number() OVER (PARTITION BY f.conversation_id ORDER BY f.ord, p.ordinality) AS sequence
    FROM fresh f
   CROSS JOIN LATERAL (SELECT mode, last_reply_sequence FROM conversation WHERE id = f.conversation_id LIMIT 1) c
   CROSS JOIN LATERAL json_array_elements(f.parts) WITH ORDINALITY AS p),
replies AS (
  INSERT INTO reply (conversation_id, channel_id, sequence, message_id, author, body, external_key, status, settled_at, error)
  SELECT conversation_id, channel_id, sequence, message_id, 'bot', body, key, CASE WHEN draft THEN 'cancelled' ELSE 'pending' END,
         CASE WHEN draft THEN now() END, CASE WHEN draft THEN 'it came after a person took over' ELSE '' END
    FROM parts ORDER BY conversation_id, sequence),
questions AS (
  INSERT INTO conversation_state (conversation_id, offered)
  SELECT conversation_id, max(sequence) FROM parts WHERE NOT draft AND body -> 'choices' IS NOT NULL GROUP BY conversation_id
  ON CONFLICT (conversation_id) DO UPDATE SET offered = excluded.offered),
lanes AS (
  UPDATE conversation c
     SET last_reply_sequence = c.last_reply_sequence + n.added,
         next_reply_sequence = CASE WHEN n.draft AND c.next_reply_sequence > c.last_reply_sequence
                                    THEN c.next_reply_sequence + n.added ELSE c.next_reply_sequence END,
         send_due_at = CASE WHEN n.draft THEN c.send_due_at
             ELSE lane_send_due_at(c.next_reply_sequence, c.last_reply_sequence, c.send_due_at,
                                   greatest(now() + interval '3 s', c.phone_until)) END
    FROM (SELECT conversation_id, bool_or(draft) AS draft, count(*) AS added FROM parts GROUP BY conversation_id) n
   WHERE c.id = n.conversation_id AND c.id = ANY (ARRAY(SELECT conversation_id FROM parts)))
SELECT i.ord,
       CASE WHEN f.ord IS NOT NULL THEN 'stored'
            WHEN k.ord IS NOT NULL THEN 'duplicate'
            WHEN i.conversation_id IS NULL THEN 'unknown'
            WHEN NOT i.held THEN 'busy'
            WHEN i.message_status IN ('pending', 'waiting') THEN 'early'
            ELSE 'duplicate' END,
       i.conversation_id
  FROM items i LEFT JOIN fresh f USING (ord) LEFT JOIN known k USING (ord)
