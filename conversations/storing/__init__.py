"""Storing, step 1: the entries of a webhook become numbered rows.

intake.py         accept() and store(): COMMIT, or the spool
routing.py        which channel of an app an entry is for
rows.py           an adapter's entries as rows; pure
wishes.py         what a message says about ours: until when they may come, and whether
store_stream.py   many requests, one transaction
statuses.py       what platforms report of our replies: delivered, read, failed
templates.py      what platforms say of templates: lists, and reports in webhooks
late_replies.py   replies that an http bot posts after its turn
spool.py          the file that takes webhooks while Postgres is away
spool_format.py   a request as a sealed line
spool_tally.py    how many lines wait, since when
spool_drainer.py  stores what the spool holds, once Postgres is back
"""
