-- Numbers the waiting messages of the lane. everything: end windows and gaps at once. Index: message_waiting.
SELECT release_waiting(nullif(current_setting('app.locked', true), '')::bigint, %(everything)s)
