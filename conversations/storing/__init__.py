"""Storing, step 1: the entries of a webhook become numbered rows.

intake.py         accept() and store(): COMMIT, or the spool
statuses.py       what platforms say of our replies: delivered, read, failed
late_replies.py   replies that an http bot posts after its turn
spool.py          the file that takes webhooks while Postgres is away
spool_drainer.py  stores what the spool holds, once Postgres is back
"""
