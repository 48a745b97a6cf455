"""Storing, step 1: the entries of a webhook become numbered rows.

intake.py         accept() and store(): COMMIT, or the spool
routing.py        which channel of an app an entry is for
rows.py           an adapter's entries as rows; pure
store_stream.py   many requests, one transaction
late_replies.py   replies that an http bot posts after its turn
spool.py          the file that takes webhooks while Postgres is away
spool_format.py   a request as a sealed line
spool_drainer.py  stores what the spool holds, once Postgres is back
"""
