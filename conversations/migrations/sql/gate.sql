-- The gate in front of the outbox. Run once by migration 0013.

-- The first reply to the message with which the person opted out is the one confirmation that may still go
-- out, unless a person of staff wrote it. Asked only where the person has opted out.
CREATE FUNCTION confirms_opt_out(reply_id bigint) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT EXISTS (
         SELECT FROM reply r
          CROSS JOIN LATERAL (SELECT m.payload ->> 'wish' AS wish FROM message m WHERE m.id = r.message_id LIMIT 1) m
          WHERE r.id = reply_id AND r.author <> 'person' AND m.wish = 'nothing'
            AND NOT EXISTS (SELECT FROM reply b WHERE b.conversation_id = r.conversation_id AND b.sequence < r.sequence
                               AND b.message_id = r.message_id OFFSET 0))
$$;

-- Why a pending reply may not go out now, a word of GATE in delivering/decision.py; null: it may. The only
-- such rule: fetch_replies asks it, and commit_sends again under the lane's lock. It is a single expression,
-- so that the planner puts it into these statements.
CREATE FUNCTION reply_refusal(reply_id bigint, author text, body jsonb, opted_out_at timestamptz, no_marketing_since timestamptz,
                              unreachable_since timestamptz, window_until timestamptz)
RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN opted_out_at IS NOT NULL AND NOT confirms_opt_out(reply_id) THEN 'opted_out'
              WHEN unreachable_since IS NOT NULL AND author <> 'person' THEN 'unreachable'
              WHEN no_marketing_since IS NOT NULL AND lower(body #>> '{template,category}') = 'marketing' THEN 'no_marketing'
              WHEN window_until < now() AND body -> 'template' IS NULL THEN 'window' END
$$;

-- An audit entry for each change of what stops replies to a person, whichever statement makes it. Its subject
-- is the cause: app.why, a json object of words by lane id, or else the message that the same UPDATE numbered.
-- An act of staff ("staff") writes an entry of its own.
CREATE FUNCTION note_stop() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  why text := nullif(current_setting('app.why', true), '');
BEGIN
  IF why = 'staff' THEN RETURN NULL; END IF;
  INSERT INTO audit (verb, conversation_id, tenant_id, subject)
  SELECT s.verb, NEW.id, (SELECT tenant_id FROM channel WHERE id = NEW.channel_id),
         coalesce(why::jsonb ->> NEW.id::text,
                  CASE WHEN NEW.last_sequence > OLD.last_sequence THEN 'message ' || NEW.last_sequence ELSE 'a message' END)
    FROM (VALUES ('opted_out', OLD.opted_out_at, NEW.opted_out_at), ('opted_in', NEW.opted_out_at, OLD.opted_out_at),
                 ('marketing_refused', OLD.no_marketing_since, NEW.no_marketing_since),
                 ('marketing_allowed', NEW.no_marketing_since, OLD.no_marketing_since),
                 ('unreachable', OLD.unreachable_since, NEW.unreachable_since),
                 ('reachable', NEW.unreachable_since, OLD.unreachable_since)) AS s(verb, absent, present)
   WHERE s.absent IS NULL AND s.present IS NOT NULL;
  RETURN NULL;
END $$;
CREATE TRIGGER lane_stops AFTER UPDATE ON conversation FOR EACH ROW
  WHEN ((OLD.opted_out_at IS NULL) <> (NEW.opted_out_at IS NULL)
     OR (OLD.no_marketing_since IS NULL) <> (NEW.no_marketing_since IS NULL)
     OR (OLD.unreachable_since IS NULL) <> (NEW.unreachable_since IS NULL))
  EXECUTE FUNCTION note_stop();
