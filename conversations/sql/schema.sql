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
CREATE FUNCTION release_waiting(lane bigint, everything boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  c conversation;
  m message;
  hole message;
  moment timestamptz := clock_timestamp();
  gap_timeout interval;
  released integer := 0;
  is_late boolean;
  why text;
  until timestamptz;
  cutoff bigint;
  lowest bigint;
BEGIN
  SELECT * INTO c FROM conversation WHERE id = lane FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN 0; END IF;
  SELECT make_interval(secs => coalesce((options ->> 'gap_timeout_s')::float, 30)) INTO gap_timeout
    FROM channel WHERE id = c.channel_id;
  gap_timeout := coalesce(gap_timeout, interval '30 s');
  SELECT max(order_key) INTO cutoff FROM message
    WHERE conversation_id = lane AND status = 'waiting' AND order_key IS NOT NULL
      AND (everything OR release_at <= moment);
  LOOP
    m := NULL; is_late := false; why := '';
    -- 1. The platform's own number is used, fell back, or jumped too far: no order to wait for.
    IF c.last_key IS NOT NULL THEN
      SELECT * INTO m FROM message WHERE conversation_id = lane AND status = 'waiting' AND external_sequence IS NOT NULL
        AND (external_sequence <= c.last_key OR external_sequence > c.last_key + 1000) ORDER BY id LIMIT 1;
      IF FOUND THEN
        is_late := true;
        IF m.external_sequence > c.last_key THEN
          why := 'the platform''s number jumped by more than 1,000';
        ELSE
          SELECT * INTO hole FROM message WHERE conversation_id = lane AND status = 'missing'
            AND m.external_sequence BETWEEN external_sequence AND order_key ORDER BY id LIMIT 1;
          why := CASE WHEN FOUND THEN 'late: it belongs to the hole at number ' || hole.sequence
                      ELSE 'the platform used this number before, or fell back' END;
        END IF;
      ELSE
        -- 2. The next expected number.
        SELECT * INTO m FROM message WHERE conversation_id = lane AND status = 'waiting'
          AND external_sequence = c.last_key + 1 ORDER BY id LIMIT 1;
        IF FOUND THEN c.last_key := m.external_sequence; c.gap_since := NULL; END IF;
      END IF;
    END IF;
    -- 3. Settle window: in key order, up to the greatest key whose window is over; a latecomer at once, marked.
    IF m.id IS NULL THEN
      SELECT * INTO m FROM message WHERE conversation_id = lane AND status = 'waiting' AND order_key IS NOT NULL
        AND external_sequence IS NULL AND (order_key <= cutoff OR order_key < c.last_key) ORDER BY order_key, id LIMIT 1;
      IF FOUND THEN
        is_late := coalesce(m.order_key < c.last_key, false);
        why := CASE WHEN is_late THEN 'late: a later one had its number already' ELSE '' END;
        c.last_key := greatest(c.last_key, m.order_key);
      END IF;
    END IF;
    -- 4. What has no order of its own: in arrival order, never before those that already wait.
    IF m.id IS NULL THEN
      SELECT * INTO m FROM message w WHERE w.conversation_id = lane AND w.status = 'waiting'
        ORDER BY w.id LIMIT 1;
      IF m.external_sequence IS NOT NULL OR m.order_key IS NOT NULL THEN m := NULL; END IF;
    END IF;
    IF m.id IS NOT NULL THEN
      c.last_sequence := c.last_sequence + 1;
      released := released + 1;
      UPDATE message SET status = 'pending', sequence = c.last_sequence, late = is_late, note = why WHERE id = m.id;
      CONTINUE;
    END IF;
    -- 5. Only numbers beyond a hole are left: find the base, or wait for the gap to end, or close it.
    SELECT min(external_sequence) INTO lowest FROM message
      WHERE conversation_id = lane AND status = 'waiting' AND external_sequence IS NOT NULL;
    EXIT WHEN lowest IS NULL;
    IF c.last_key IS NULL THEN
      SELECT min(release_at) INTO until FROM message
        WHERE conversation_id = lane AND status = 'waiting' AND external_sequence IS NOT NULL;
      EXIT WHEN NOT (everything OR lowest = 1 OR until <= moment);
      c.last_key := lowest - 1;
      CONTINUE;
    END IF;
    c.gap_since := coalesce(c.gap_since, moment);
    EXIT WHEN NOT everything AND c.gap_since + gap_timeout > moment;
    c.last_sequence := c.last_sequence + 1;
    -- For a missing row, external_sequence and order_key are the first and the last number of the hole.
    INSERT INTO message (conversation_id, sequence, identity, content_hash, kind, starts_turn, status, settled_at,
                         external_sequence, order_key, note)
    VALUES (lane, c.last_sequence, decode(md5('missing:' || lane || ':' || c.last_sequence), 'hex'), '', 'missing', false,
            'missing', moment, c.last_key + 1, lowest - 1,
            'the platform''s numbers ' || (c.last_key + 1) || ' to ' || (lowest - 1) || ' never came');
    c.last_key := lowest - 1;
    c.gap_since := NULL;
  END LOOP;
  SELECT min(CASE WHEN external_sequence IS NOT NULL AND c.gap_since IS NOT NULL THEN c.gap_since + gap_timeout
                  ELSE coalesce(release_at, moment) END) INTO until
    FROM message WHERE conversation_id = lane AND status = 'waiting' AND (external_sequence IS NOT NULL OR order_key IS NOT NULL);
  UPDATE conversation SET last_sequence = c.last_sequence, last_key = c.last_key, gap_since = c.gap_since, wait_until = until,
         due_at = lane_due_at(mode, paused_at, blocked, next_sequence, c.last_sequence, not_before, until, moment + interval '3 s')
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
