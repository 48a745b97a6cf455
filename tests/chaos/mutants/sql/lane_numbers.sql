-- A sequence for each lane.
CREATE FUNCTION lane_number(lane bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass('lane_' || lane) IS NULL THEN EXECUTE 'CREATE SEQUENCE lane_' || lane; END IF;
  RETURN nextval('lane_' || lane);
END $$
