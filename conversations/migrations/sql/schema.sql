-- What Django's migrations cannot say: rules, functions and partitions. Run once by migration 0002.

-- The one rule for due_at, in every statement that writes a lane.
-- null: nothing for a machine to do (a person answers, paused, blocked, or nothing there).
-- A numbered message is next: its retry time, or `soon`. Else the earliest end of what waits.
CREATE FUNCTION lane_due_at(mode text, paused_at timestamptz, blocked boolean, next_sequence bigint, last_sequence bigint,
                            not_before timestamptz, wait_until timestamptz, soon timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN mode <> 'bot' OR paused_at IS NOT NULL OR blocked THEN NULL
              WHEN next_sequence <= last_sequence THEN greatest(not_before, soon)
              ELSE wait_until END
$$;

-- The one rule for send_due_at when replies are added: a lane that is already waiting for something keeps its time.
CREATE FUNCTION lane_send_due_at(next_reply bigint, last_reply bigint, due timestamptz, soon timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN next_reply > last_reply THEN soon ELSE due END
$$;

-- Gives waiting messages of one lane their numbers, as far as the order is known; returns how many.
-- Locks the lane's row. `everything`: windows and gaps are over at once (a person takes over).
-- What waits is read once, in arrival order; `in_order` are the places of what has an order, in that order.
CREATE FUNCTION release_waiting(lane bigint, everything boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  c conversation;
  before bigint;
  hole message;
  moment timestamptz := clock_timestamp();
  gap_timeout interval;
  ids bigint[]; externals bigint[]; keys bigint[]; came timestamptz[]; in_order integer[]; base_at timestamptz;
  gone boolean[]; total integer; oldest integer := 1; look integer := 1; next integer := 1;
  place integer; ahead integer; is_late boolean; why text; cutoff bigint;
  given bigint[] := '{}'; numbers bigint[] := '{}'; lates boolean[] := '{}'; whys text[] := '{}'; released integer := 0;
  until timestamptz;
BEGIN
  SELECT * INTO c FROM conversation WHERE id = lane FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN 0; END IF;
  before := c.last_sequence;
  SELECT make_interval(secs => (options ->> 'gap_timeout_s')::float) INTO gap_timeout FROM channel WHERE id = c.channel_id;
  gap_timeout := coalesce(gap_timeout, interval '30 s');
  SELECT array_agg(w.id ORDER BY w.id), array_agg(w.external_sequence ORDER BY w.id),
         array_agg(CASE WHEN w.external_sequence IS NULL THEN w.order_key END ORDER BY w.id), array_agg(w.received_at ORDER BY w.id),
         array_agg(w.place ORDER BY coalesce(w.external_sequence, w.order_key), w.id)
           FILTER (WHERE coalesce(w.external_sequence, w.order_key) IS NOT NULL),
         min(w.release_at) FILTER (WHERE w.external_sequence IS NOT NULL),
         max(w.order_key) FILTER (WHERE w.external_sequence IS NULL AND (everything OR w.release_at <= moment)),
         array_agg(false), count(*)
    INTO ids, externals, keys, came, in_order, base_at, cutoff, gone, total
    FROM (SELECT *, row_number() OVER (ORDER BY id) AS place FROM message WHERE conversation_id = lane AND sequence IS NULL) w;
  LOOP
    place := NULL; ahead := NULL; is_late := false; why := '';
    WHILE oldest <= total AND gone[oldest] LOOP oldest := oldest + 1; END LOOP;
    WHILE next <= cardinality(in_order) AND gone[in_order[next]] LOOP next := next + 1; END LOOP;
    EXIT WHEN oldest > total;
    IF next <= cardinality(in_order) THEN ahead := in_order[next]; END IF;
    -- A number that was used, fell back or jumped too far is no order to wait for: a look at all, once the base is known.
    WHILE c.last_key IS NOT NULL AND look <= total AND (gone[look] OR externals[look] IS NULL OR
          (externals[look] > c.last_key AND externals[look] - 1000 <= c.last_key)) LOOP look := look + 1; END LOOP;
    IF externals[oldest] IS NULL AND keys[oldest] IS NULL THEN
      place := oldest;  -- no order of its own: in arrival order, never before those that already wait
    ELSIF c.last_key IS NOT NULL AND look <= total THEN
      place := look;
    ELSIF externals[ahead] - 1 <= c.last_key OR keys[ahead] <= cutoff OR keys[ahead] < c.last_key THEN
      place := ahead;  -- the next expected number, or a window that is over
    END IF;
    IF place IS NOT NULL THEN
      IF externals[place] - 1000 > c.last_key THEN
        is_late := true; why := 'the platform''s number jumped by more than 1,000';
      ELSIF externals[place] <= c.last_key THEN
        SELECT * INTO hole FROM message WHERE conversation_id = lane AND status = 'missing' AND sequence > c.last_sequence - 10000
          AND externals[place] BETWEEN external_sequence AND order_key ORDER BY id LIMIT 1;
        is_late := true;
        why := CASE WHEN FOUND THEN 'late: it belongs to the hole at number ' || hole.sequence
                    ELSE 'the platform used this number before, or fell back' END;
      ELSIF keys[place] < c.last_key THEN
        is_late := true; why := 'late: a later one had its number already';
      ELSIF externals[place] IS NOT NULL THEN
        c.last_key := externals[place]; c.gap_since := NULL;
      ELSIF keys[place] IS NOT NULL THEN
        c.last_key := keys[place];
      END IF;
      c.last_sequence := c.last_sequence + 1;
      released := released + 1;
      gone[place] := true;
      given[released] := ids[place]; numbers[released] := c.last_sequence; lates[released] := is_late; whys[released] := why;
      CONTINUE;
    END IF;
    EXIT WHEN externals[ahead] IS NULL;
    -- Only numbers beyond a hole are left: find the base, or wait for the gap to end, or close it.
    IF c.last_key IS NULL THEN
      EXIT WHEN NOT (everything OR externals[ahead] = 1 OR base_at <= moment);
      c.last_key := externals[ahead] - 1;
      CONTINUE;
    END IF;
    IF c.gap_since IS NULL THEN  -- since the first that came from beyond it
      SELECT min(came[p]) INTO c.gap_since FROM unnest(in_order[next:]) AS p WHERE NOT gone[p];
    END IF;
    EXIT WHEN NOT everything AND c.gap_since + gap_timeout > moment;
    c.last_sequence := c.last_sequence + 1;
    -- For a missing row, external_sequence and order_key are the first and the last number of the hole.
    INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, status, settled_at,
                         external_sequence, order_key, note)
    VALUES (lane, c.last_sequence, decode(md5('missing:' || lane || ':' || c.last_sequence), 'hex'), '', 'missing', false,
            'missing', moment, c.last_key + 1, externals[ahead] - 1,
            'the platform''s numbers ' || (c.last_key + 1) || ' to ' || (externals[ahead] - 1) || ' never came');
    c.last_key := externals[ahead] - 1;
    c.gap_since := NULL;
  END LOOP;
  UPDATE message m SET status = 'pending', sequence = r.sequence, late = r.late, note = r.note
    FROM unnest(given, numbers, lates, whys) AS r(id, sequence, late, note) WHERE m.id = r.id AND m.id = ANY (given);
  SELECT min(CASE WHEN external_sequence IS NOT NULL AND c.gap_since IS NOT NULL THEN c.gap_since + gap_timeout
                  ELSE coalesce(release_at, moment) END) INTO until
    FROM message WHERE conversation_id = lane AND sequence IS NULL AND (external_sequence IS NOT NULL OR order_key IS NOT NULL);
  -- A lane that had something to handle before keeps its time: a person who writes without a pause is not put off.
  UPDATE conversation SET last_sequence = c.last_sequence, last_key = c.last_key, gap_since = c.gap_since, wait_until = until,
         due_at = coalesce(CASE WHEN next_sequence <= before THEN due_at END,
                  lane_due_at(mode, paused_at, blocked, next_sequence, c.last_sequence, not_before, until, moment + interval '3 s'))
   WHERE id = lane;
  RETURN released;
END $$;

-- Counters of a lane never go back, whatever code writes the row.
CREATE FUNCTION refuse_backward_lane() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'conversation %: a counter would go back', OLD.id USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER conversation_never_goes_back BEFORE UPDATE ON conversation FOR EACH ROW
  WHEN (NEW.last_sequence < OLD.last_sequence OR NEW.next_sequence < OLD.next_sequence
     OR NEW.last_reply_sequence < OLD.last_reply_sequence OR NEW.next_reply_sequence < OLD.next_reply_sequence
     OR NEW.epoch < OLD.epoch OR NEW.cancelled_through < OLD.cancelled_through)
  EXECUTE FUNCTION refuse_backward_lane();

-- A number that was given never changes.
CREATE TRIGGER message_number_never_moves BEFORE UPDATE OF sequence ON message FOR EACH ROW
  WHEN (OLD.sequence IS NOT NULL AND NEW.sequence IS DISTINCT FROM OLD.sequence)
  EXECUTE FUNCTION refuse_backward_lane();

-- The audit is append-only.
CREATE RULE audit_is_kept AS ON UPDATE TO audit DO INSTEAD NOTHING;
CREATE RULE audit_stays AS ON DELETE TO audit DO INSTEAD NOTHING;

-- Raw bodies, by day: a missing day never refuses a webhook (default partition).
CREATE TABLE receipt_body (
  receipt_id bigint NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  headers jsonb NOT NULL DEFAULT '{}',
  body bytea NOT NULL,
  PRIMARY KEY (received_at, receipt_id)
) PARTITION BY RANGE (received_at);
CREATE TABLE receipt_body_default PARTITION OF receipt_body DEFAULT;

-- Receipts get their ids in blocks of 1,000, so that a message can name its receipt in the same statement.
CREATE SEQUENCE receipt_block INCREMENT 1000 MINVALUE 1000 START 1000;

ALTER TABLE conversation SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE conversation_state SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE message SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE reply SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
