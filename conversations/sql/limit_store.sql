-- The whole transaction's time, where the server has such a limit (17 on): a process that freezes while it still sends a
-- large body is not idle in its transaction, and would hold its lanes for ever. No arguments. One row, ignored.
SELECT CASE WHEN current_setting('server_version_num')::integer >= 170000
            THEN set_config('transaction_timeout', '5000', true) END
