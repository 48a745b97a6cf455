-- A message that came after its window changes places with the one before it.
DECLARE
  before bigint := (SELECT last_sequence FROM conversation WHERE id = lane);
  released integer := planted_release_waiting(lane, everything);
  latecomer bigint;
BEGIN
  FOR latecomer IN SELECT sequence FROM message WHERE conversation_id = lane AND sequence > greatest(before, 1)
                      AND late AND external_sequence IS NULL AND order_key IS NOT NULL ORDER BY sequence LOOP
    UPDATE message SET sequence = sequence + 1000000 WHERE conversation_id = lane AND sequence = latecomer;
    UPDATE message SET sequence = latecomer WHERE conversation_id = lane AND sequence = latecomer - 1;
    UPDATE message SET sequence = latecomer - 1 WHERE conversation_id = lane AND sequence = latecomer + 1000000;
  END LOOP;
  RETURN released;
END
