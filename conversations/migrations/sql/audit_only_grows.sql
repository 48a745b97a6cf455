-- The audit refuses every change of its rows, and says so; before, UPDATE and DELETE did nothing without a word, and
-- TRUNCATE emptied it. Run once by migration 0006.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit only grows: % is refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
DROP RULE audit_is_kept ON audit;
DROP RULE audit_stays ON audit;
