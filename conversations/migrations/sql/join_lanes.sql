-- Has the lane ended go on in the lane kept: the platform says that the ids of both are one person's. What
-- was not handled is copied to the tail of kept, in its order, and takes its files and the results of effects
-- that happen once with it; a turn that runs is void. What holds the bot or replies back in ended does so in
-- kept: a person who answers, or a parked head that blocks, makes it a person's. The caller has locked both.
-- At most 1,000 are copied at once, within the time of a statement. Where more are left, false is returned: the
-- bot takes nothing from ended for 60 s, in which the next calls copy the rest. Run once by migration 0019.
CREATE FUNCTION join_lanes(ended bigint, kept bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  b conversation;
  a conversation;
  by_staff boolean;
  added integer;
  rest bigint;
  later timestamptz;
BEGIN
  PERFORM release_waiting(ended, true), release_waiting(kept, true);
  SELECT * INTO b FROM conversation WHERE id = ended;
  SELECT * INTO a FROM conversation WHERE id = kept;
  IF a.contact_id = b.contact_id THEN RETURN true; END IF; -- another transaction joined them just now
  by_staff := b.mode = 'human' OR b.blocked;
  WITH copies AS (
    INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, text, payload, sender,
                         platform_id, delivery_id, receipt_id, entry, replay_of)
    SELECT kept, a.last_sequence + row_number() OVER (ORDER BY m.sequence), decode(md5('joined:' || m.id), 'hex'), m.content_hash,
           m.kind, m.starts_turn, m.text, m.payload, m.sender, m.platform_id, m.delivery_id, m.receipt_id, m.entry, m.id
      FROM message m WHERE m.conversation_id = ended AND m.sequence >= b.next_sequence AND m.status = 'pending'
     ORDER BY m.sequence LIMIT 1000
    RETURNING id, replay_of),
  originals AS (
    UPDATE message m SET status = 'skipped', settled_at = now(), note = 'it goes on in conversation ' || kept
      FROM copies c WHERE m.id = c.replay_of AND m.id = ANY (ARRAY(SELECT replay_of FROM copies))),
  files AS (
    UPDATE media f SET message_id = c.id, conversation_id = kept
      FROM copies c WHERE f.conversation_id = ended AND f.message_id = c.replay_of),
  effects AS (
    UPDATE once o SET message_id = c.id
      FROM copies c WHERE o.message_id = c.replay_of AND o.message_id = ANY (ARRAY(SELECT replay_of FROM copies)))
  SELECT count(*) INTO added FROM copies;
  SELECT min(m.sequence) INTO rest FROM message m
   WHERE m.conversation_id = ended AND m.sequence >= b.next_sequence AND m.status = 'pending';
  later := CASE WHEN rest IS NOT NULL THEN now() + interval '60 s' END;
  UPDATE conversation
     SET next_sequence = coalesce(rest, last_sequence + 1), epoch = epoch + 1, attempts = 0, not_before = later, blocked = false,
         mode = CASE WHEN by_staff AND rest IS NOT NULL THEN 'human' ELSE mode END,
         due_at = CASE WHEN NOT by_staff AND paused_at IS NULL THEN later END,
         contact_id = CASE WHEN rest IS NULL THEN a.contact_id ELSE contact_id END
   WHERE id = ended;
  UPDATE conversation c
     SET last_sequence = c.last_sequence + added, epoch = c.epoch + by_staff::integer,
         mode = CASE WHEN by_staff THEN 'human' ELSE c.mode END, paused_at = coalesce(c.paused_at, b.paused_at),
         opted_out_at = coalesce(c.opted_out_at, b.opted_out_at),
         no_marketing_since = coalesce(c.no_marketing_since, b.no_marketing_since),
         due_at = lane_due_at(CASE WHEN by_staff THEN 'human' ELSE c.mode END, coalesce(c.paused_at, b.paused_at), c.blocked,
                              c.next_sequence, c.last_sequence + added, c.not_before, c.wait_until, now() + interval '3 s')
   WHERE id = kept;
  INSERT INTO audit (verb, conversation_id, tenant_id, subject, reason)
  SELECT 'joined_with', l.id, (SELECT tenant_id FROM channel WHERE id = a.channel_id), 'conversation ' || l.other,
         'both are one person; what comes goes on in conversation ' || kept
    FROM (VALUES (ended, kept), (kept, ended)) AS l(id, other)
   WHERE rest IS NULL;
  RETURN rest IS NULL;
END $$;
