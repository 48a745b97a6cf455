-- A settle window is over at once.
BEGIN
  UPDATE message SET release_at = least(release_at, clock_timestamp())
   WHERE conversation_id = lane AND sequence IS NULL AND external_sequence IS NULL;
  RETURN planted_release_waiting(lane, everything);
END
