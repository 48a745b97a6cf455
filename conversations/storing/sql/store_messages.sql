-- Stores a batch's messages in the lanes that this transaction holds (app.locked, see lock_lanes):
-- leaves out duplicates, numbers the rest in the order of the batch, moves the lanes' counters and
-- due_at. It is not one statement with the locking: its snapshot must show what another batch
-- committed before we got the locks. It also counts the outcomes per receipt, keeps the raw body of
-- a receipt that brought something new, and adds a row for each file, which is then fetched. due_at
-- is 3 s ahead: normally the wake is faster, and the sweeper finds the lane only if the wake was lost.
-- items: json list of rows.MessageRow; receipts: json list of {id, channel_id, noted, quarantined,
-- twins}: totals, and for each twin (see store_stream) the ord of its first; ids bigint[], headers
-- json list, bodies bytea[]: receipts whose body is not kept yet.
-- Rows: ord, verdict, conversation id; then null, '', id of each receipt whose body was kept.
-- Verdicts: stored, duplicate, conflict (a stored identity with other content), busy (the lane is
-- not held). Indexes: conversation_once, alias_once, message_identity_once.
WITH items AS MATERIALIZED (
  SELECT i.*,
         coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                      AND a.of = 'chat' AND a.value = i.chat), i.chat) AS lane_chat,
         coalesce((SELECT a.known_as FROM alias a WHERE a.channel_id = i.channel_id
                      AND a.of = 'user' AND a.value = i."user"), i."user") AS lane_user
    FROM json_to_recordset(%(items)s::json) AS i(
         ord integer, channel_id bigint, chat text, "user" text, identity text, content_hash text, kind text,
         starts_turn boolean, text text, payload jsonb, sender jsonb, platform_id text, delivery_id text,
         external_sequence bigint, order_key bigint, settle_ms integer, receipt_id bigint, entry smallint,
         address jsonb, window_until timestamptz)),
mine AS MATERIALIZED (
  SELECT i.ord, c.id AS conversation_id, c.last_sequence, c.wait_until, c.last_key,
         decode(i.identity, 'hex') AS identity, decode(i.content_hash, 'hex') AS content_hash
    FROM items i
   CROSS JOIN LATERAL (SELECT l.id, l.last_sequence, l.wait_until, l.last_key FROM conversation l
                        WHERE l.channel_id = i.channel_id AND l.chat = i.lane_chat AND l."user" = i.lane_user
                          AND l.id = ANY (string_to_array(current_setting('app.locked', true), ',')::bigint[]) LIMIT 1) c),
known AS MATERIALIZED (
  SELECT n.ord, m.content_hash = n.content_hash AS same
    FROM mine n
   CROSS JOIN LATERAL (SELECT content_hash FROM message WHERE identity = n.identity LIMIT 1) m),
fresh AS MATERIALIZED (
  SELECT DISTINCT ON (n.identity) n.* FROM mine n
   WHERE NOT EXISTS (SELECT FROM known k WHERE k.ord = n.ord) ORDER BY n.identity, n.ord),
twins AS MATERIALIZED (
  -- Later copies of a message within this batch; the first copy is stored.
  SELECT n.ord, f.content_hash = n.content_hash AS same FROM mine n JOIN fresh f ON f.identity = n.identity AND f.ord <> n.ord),
ordered AS (
  -- waits: an earlier message may still come, by the platform's order, or the lane waits already.
  SELECT f.*, bool_or(i.external_sequence IS NOT NULL OR (coalesce(i.settle_ms, 0) > 0 AND i.order_key IS NOT NULL) OR f.wait_until IS NOT NULL)
              OVER (PARTITION BY f.conversation_id ORDER BY f.ord) AS waits
    FROM fresh f JOIN items i USING (ord)),
numbered AS MATERIALIZED (
  SELECT o.*, CASE WHEN NOT o.waits
              THEN o.last_sequence + row_number() OVER (PARTITION BY o.conversation_id, o.waits ORDER BY o.ord) END AS sequence
    FROM ordered o),
stored AS (
  INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, status, text, payload, sender,
                       platform_id, delivery_id, external_sequence, order_key, release_at, receipt_id, entry)
  SELECT n.conversation_id, n.sequence, n.identity, n.content_hash, coalesce(i.kind, 'message'), coalesce(i.starts_turn, false),
         CASE WHEN n.waits THEN 'waiting' ELSE 'pending' END, coalesce(i.text, ''), i.payload, i.sender,
         coalesce(i.platform_id, ''), coalesce(i.delivery_id, ''), i.external_sequence,
         CASE WHEN i.settle_ms > 0 THEN i.order_key END,
         CASE WHEN i.external_sequence IS NOT NULL THEN clock_timestamp() + interval '2 s'
              WHEN i.settle_ms > 0 AND i.order_key IS NOT NULL THEN clock_timestamp() + make_interval(secs => i.settle_ms / 1000.0) END,
         i.receipt_id, coalesce(i.entry, 0)
    FROM numbered n JOIN items i USING (ord) ORDER BY n.ord
  RETURNING id, conversation_id, payload -> 'attachments' AS attachments),
files AS (
  -- A file that was uploaded to us has its row already, which learns its message, the first that names it.
  INSERT INTO media AS m (id, channel_id, conversation_id, message_id, reference, due_at)
  SELECT DISTINCT ON (a.value ->> 'media') (a.value ->> 'media')::uuid, c.channel_id, s.conversation_id, s.id, a.value, now()
    FROM stored s
   CROSS JOIN LATERAL jsonb_array_elements(s.attachments) AS a(value)
   CROSS JOIN LATERAL (SELECT l.channel_id FROM conversation l WHERE l.id = s.conversation_id LIMIT 1) c
   WHERE a.value ? 'media'
   ORDER BY a.value ->> 'media', s.id
  ON CONFLICT (id) DO UPDATE SET conversation_id = excluded.conversation_id, message_id = excluded.message_id
   WHERE m.channel_id = excluded.channel_id AND m.message_id IS NULL),
lanes AS (
  UPDATE conversation c
     SET last_sequence = c.last_sequence + n.given,
         due_at = CASE WHEN c.next_sequence <= c.last_sequence OR n.given = 0 THEN c.due_at
                  ELSE lane_due_at(c.mode, c.paused_at, c.blocked, c.next_sequence, c.last_sequence + n.given, c.not_before,
                                   c.wait_until, now() + interval '3 s') END,
         unreachable_since = CASE WHEN n.newest_kind = 'blocked' THEN now() END,
         window_until = greatest(c.window_until, n.window_until),
         address = CASE WHEN n.address IS NULL OR c.address @> n.address THEN c.address ELSE c.address || n.address END
    FROM (SELECT u.conversation_id, count(u.sequence) AS given,
                 (array_agg(i.kind ORDER BY u.ord DESC))[1] AS newest_kind, max(i.window_until) AS window_until,
                 (array_agg(i.address ORDER BY u.ord DESC) FILTER (WHERE i.address IS NOT NULL))[1] AS address
            FROM numbered u JOIN items i USING (ord) GROUP BY u.conversation_id) n
   WHERE c.id = n.conversation_id AND c.id = ANY (ARRAY(SELECT conversation_id FROM numbered))),
receipts AS (
  INSERT INTO receipt AS r (id, channel_id, stored, duplicates, noted, quarantined)
  SELECT g.id, g.channel_id, coalesce(s.stored, 0),
         coalesce(s.duplicates, 0) + (SELECT count(*) FROM unnest(g.twins) AS t(ord) JOIN mine n USING (ord)), coalesce(g.noted, 0), coalesce(g.quarantined, 0)
    FROM json_to_recordset(%(receipts)s::json) AS g(id bigint, channel_id bigint, noted integer, quarantined integer, twins integer[])
    LEFT JOIN (SELECT i.receipt_id, count(f.ord) AS stored, count(*) - count(f.ord) AS duplicates
                 FROM mine n JOIN items i USING (ord) LEFT JOIN fresh f USING (ord) GROUP BY i.receipt_id) s
           ON s.receipt_id = g.id
  ON CONFLICT (id) DO UPDATE SET stored = r.stored + excluded.stored, duplicates = r.duplicates + excluded.duplicates,
         quarantined = greatest(r.quarantined, excluded.quarantined)
  RETURNING r.id, r.received_at, r.stored + r.quarantined + r.noted > 0 AS brought),
bodies AS (
  INSERT INTO receipt_body (receipt_id, received_at, headers, body)
  SELECT b.id, r.received_at, (%(headers)s::jsonb) -> (b.place - 1)::integer, b.body
    FROM unnest(%(ids)s::bigint[], %(bodies)s::bytea[]) WITH ORDINALITY AS b(id, body, place)
    JOIN receipts r ON r.id = b.id AND r.brought
  ON CONFLICT DO NOTHING
  RETURNING receipt_id)
SELECT i.ord,
       CASE WHEN f.ord IS NOT NULL THEN 'stored' WHEN n.ord IS NULL THEN 'busy'
            WHEN coalesce(k.same, t.same) IS FALSE THEN 'conflict' ELSE 'duplicate' END,
       n.conversation_id
  FROM items i LEFT JOIN mine n USING (ord) LEFT JOIN known k USING (ord) LEFT JOIN fresh f USING (ord) LEFT JOIN twins t USING (ord)
 UNION ALL SELECT NULL, '', receipt_id FROM bodies
 ORDER BY 1
