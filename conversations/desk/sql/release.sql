-- Numbers the waiting messages of the lane. everything: do not wait for earlier ones that may still
-- come. Index: message_waiting.
SELECT release_waiting(nullif(current_setting('app.locked', true), '')::bigint, %(everything)s)
