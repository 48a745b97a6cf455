-- Writes results of replies k ("sent", "parked", ...) together with intents of replies k+1 ("this
-- process is about to send it"), each only if nothing relevant changed (compare-and-set). lock_ids
-- has locked the lanes (conversations); those that it could not lock are "busy".
--   A result needs: the reply in the status that the sender knows, and no intent since; if it was not
--   being sent, nothing unsettled before it. "pending" becomes "cancelled" after a take-over. What the
--   platform said meanwhile wins: a status of this send, or without the platform's id one with the
--   reply's key, makes it "sent" or, if all that came is a failure, "failed". The next reply waits until
--   a sent one is delivered, for the phone_wait of its row. Nothing waits if that was reported already,
--   nor after a wait that ended in vain, until a status comes (phone_until is past then, and not null).
--   An intent needs: its item's result, if it has one, written and neither pending nor unknown; the
--   reply pending, without another intent since, and not expired; all before it settled; phone_until
--   past; nothing that the gate (reply_refusal) holds against it; and, for the bot, a number beyond
--   cancelled_through. Without a
--   result it writes the lane only if the head moves or send_due_at is less than a second away:
--   most lanes have one reply, and keep the time that storing it set.
-- next_reply_sequence never passes an unsettled reply: replies go out in order.
-- items: json list, see results.Step. Rows: ord, result written, intent written, busy, the reply's
-- status, whether the lane has replies beyond it.
-- Indexes: primary keys, reply_sequence_once, status_once, status_key.
WITH items AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(items)s::json) AS i(
         ord integer, id bigint, claim uuid, reply_id bigint, sequence bigint, expect text, number integer, status text,
         attempts_after smallint, delay float, platform_id text, error text, phone_wait float, new_chat text,
         intent_claim uuid, intent_id bigint, intent_sequence bigint, intent_number integer)),
held AS MATERIALIZED (
  SELECT i.*, c.cancelled_through, c.next_reply_sequence, c.last_reply_sequence, c.phone_until,
         c.opted_out_at, c.no_marketing_since, c.unreachable_since, c.window_until
    FROM items i
   CROSS JOIN LATERAL (SELECT * FROM conversation l WHERE l.id = i.id
                          AND l.id = ANY (string_to_array(current_setting('app.locked'), ',')::bigint[]) LIMIT 1) c),
due AS MATERIALIZED (
  -- Results that may be written, with the status to write.
  SELECT h.ord, h.id, h.reply_id, h.sequence, h.attempts_after, h.delay, h.platform_id, h.error, h.new_chat,
         CASE WHEN f.failed AND NOT f.arrived THEN f.error END AS later_error, f.platform_id AS said_id, f.read, f.arrived,
         CASE WHEN f.platform_id <> '' AND h.expect IN ('sending', 'unknown')
              THEN CASE WHEN f.failed AND NOT f.arrived THEN 'failed' ELSE 'sent' END
              WHEN h.status = 'pending' AND r.author = 'bot' AND r.sequence <= h.cancelled_through THEN 'cancelled'
              ELSE h.status END AS status,
         CASE WHEN f.arrived OR f.failed THEN NULL
              WHEN f.platform_id <> '' OR h.status = 'sent' THEN coalesce(h.phone_until, now() + make_interval(secs => r.phone_wait))
              ELSE h.phone_until END AS phone_until
    FROM held h
   CROSS JOIN LATERAL (SELECT * FROM reply p WHERE p.id = h.reply_id AND p.conversation_id = h.id AND p.status = h.expect
                          AND p.intent_number = h.number AND p.claimed_by IS NOT DISTINCT FROM h.claim LIMIT 1) r
   CROSS JOIN LATERAL (
         SELECT max(s.platform_id) AS platform_id, bool_or(s.status = 'read') AS read, bool_or(s.status IN ('delivered', 'read')) AS arrived,
                bool_or(s.status = 'failed') AS failed, max(s.error) FILTER (WHERE s.status = 'failed') AS error
           FROM (SELECT platform_id, status, error FROM status
                  WHERE channel_id = r.channel_id AND platform_id = h.platform_id AND h.platform_id <> ''
                  UNION ALL SELECT platform_id, status, error FROM status
                  WHERE channel_id = r.channel_id AND key = r.key AND coalesce(h.platform_id, '') = '') s) f
   WHERE h.reply_id IS NOT NULL
     AND (h.expect = 'sending' OR NOT EXISTS (
          SELECT FROM reply b WHERE b.conversation_id = h.id AND b.sequence >= h.next_reply_sequence
             AND b.sequence < h.sequence AND b.status IN ('pending', 'sending', 'unknown') OFFSET 0))),
results AS (
  UPDATE reply r
     SET status = d.status, claimed_by = NULL, attempts = coalesce(d.attempts_after, r.attempts),
         not_before = CASE WHEN d.status IN ('pending', 'unknown') THEN now() + make_interval(secs => d.delay) END,
         platform_id = coalesce(d.platform_id, d.said_id, r.platform_id),
         error = CASE WHEN d.status = 'sent' THEN r.error ELSE coalesce(nullif(d.later_error, ''), d.error, r.error) END,
         settled_at = CASE WHEN d.status NOT IN ('pending', 'unknown') THEN now() END,
         delivered = CASE WHEN d.read THEN 'read' WHEN d.arrived THEN 'delivered' ELSE r.delivered END
    FROM due d WHERE r.id = d.reply_id AND r.id = ANY (ARRAY(SELECT reply_id FROM due))),
meant AS MATERIALIZED (
  -- Intents that may be written.
  SELECT h.ord, h.id, h.intent_id, h.intent_sequence, h.intent_claim, h.phone_wait
    FROM held h LEFT JOIN due d USING (ord)
   CROSS JOIN LATERAL (SELECT * FROM reply p WHERE p.id = h.intent_id AND p.conversation_id = h.id AND p.status = 'pending'
                          AND p.intent_number = h.intent_number AND p.sequence = h.intent_sequence
                          AND (p.author <> 'bot' OR p.sequence > h.cancelled_through)
                          AND reply_refusal(p.id, p.author, p.body, h.opted_out_at, h.no_marketing_since,
                                            h.unreachable_since, h.window_until) IS NULL
                          AND (p.valid_until IS NULL OR p.valid_until >= now()) LIMIT 1) r
   WHERE h.intent_id IS NOT NULL
     AND (h.reply_id IS NULL OR d.status IN ('sent', 'parked', 'cancelled', 'expired', 'failed'))
     AND coalesce(CASE WHEN d.ord IS NULL THEN h.phone_until ELSE d.phone_until END <= now(), true)
     AND NOT EXISTS (SELECT FROM reply b WHERE b.conversation_id = h.id AND b.sequence >= h.next_reply_sequence
                        AND b.sequence < h.intent_sequence AND b.status IN ('pending', 'sending', 'unknown')
                        AND b.id IS DISTINCT FROM h.reply_id OFFSET 0)),
intents AS (
  UPDATE reply r SET status = 'sending', claimed_by = i.intent_claim, attempts = r.attempts + 1,
         intent_number = r.intent_number + 1, intent_at = now(), not_before = NULL, phone_wait = i.phone_wait
    FROM meant i WHERE r.id = i.intent_id AND r.id = ANY (ARRAY(SELECT intent_id FROM meant))),
lanes AS (
  UPDATE conversation c
     SET next_reply_sequence = coalesce(i.intent_sequence,
             CASE WHEN d.status IN ('pending', 'unknown') THEN c.next_reply_sequence
                  ELSE greatest(d.sequence + 1, c.next_reply_sequence) END),
         send_due_at = CASE WHEN i.ord IS NOT NULL THEN now() + interval '10 s'
                            WHEN d.status = 'unknown' THEN now() + make_interval(secs => d.delay)
                            WHEN d.status = 'pending' THEN now() + make_interval(secs => coalesce(d.delay, 0))
                            WHEN d.sequence < c.last_reply_sequence THEN greatest(now() + interval '3 s', d.phone_until) END,
         phone_until = CASE WHEN d.ord IS NULL THEN c.phone_until ELSE d.phone_until END,
         last_sent_at = CASE WHEN d.ord IS NOT NULL AND h.expect = 'sending' THEN now() ELSE c.last_sent_at END,
         address = CASE WHEN d.new_chat <> '' THEN c.address || jsonb_build_object('chat', d.new_chat) ELSE c.address END
    FROM held h LEFT JOIN due d USING (ord) LEFT JOIN meant i USING (ord)
   WHERE c.id = h.id AND c.id = ANY (ARRAY(SELECT id FROM held))
     AND (d.ord IS NOT NULL OR i.ord IS NOT NULL AND (c.next_reply_sequence <> i.intent_sequence OR c.send_due_at IS NULL
                                                      OR c.send_due_at < now() + interval '1 s')))
SELECT t.ord, d.ord IS NOT NULL, i.ord IS NOT NULL, h.ord IS NULL, coalesce(d.status, ''), h.last_reply_sequence > d.sequence IS TRUE
  FROM items t LEFT JOIN held h USING (ord) LEFT JOIN due d USING (ord) LEFT JOIN meant i USING (ord)
