-- Whatever number comes next was the one expected.
DECLARE
  released integer := 0;
  step integer;
BEGIN
  LOOP
    UPDATE conversation c SET last_key = w.first - 1
      FROM (SELECT min(external_sequence) AS first FROM message
             WHERE conversation_id = lane AND sequence IS NULL) w
     WHERE c.id = lane AND c.last_key < w.first - 1;
    step := planted_release_waiting(lane, everything);
    released := released + step;
    EXIT WHEN step = 0;
  END LOOP;
  RETURN released;
END
