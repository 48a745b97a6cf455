-- The number of a reply's newest intent only grows, whatever code writes the row. Attempts do not: one that is
-- given back does not count. Run once by migration 0007.
CREATE OR REPLACE FUNCTION refuse_backward_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'reply %: its intent number would go back', OLD.id USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER reply_intent_number_only_grows BEFORE UPDATE OF intent_number ON reply FOR EACH ROW
  WHEN (NEW.intent_number < OLD.intent_number) EXECUTE FUNCTION refuse_backward_number();
