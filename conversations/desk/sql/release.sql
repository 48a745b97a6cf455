-- Gives what waits in the lane its numbers. everything: windows and gaps are over at once. Index: message_waiting.
SELECT release_waiting(nullif(current_setting('app.locked', true), '')::bigint, %(everything)s)
