"""How the core talks to its database.

database.py           the core's own connections; reads and transactions
pipeline.py           many statements in one round trip
stream.py             one kind of write; a ticket for each item of it
backlog.py            which tickets make the next batch
room.py               how much may wait, shared between tenants
liveness.py           whether the database answers
remedies.py           what each error means for one item
committer.py          many callers, one transaction
reads.py              reads that ride with the committer's batches
sql_files.py          every statement, by name
storable_text.py      what Postgres can hold of texts from outside
durability.py         refuses a server that can lose what it confirmed
bot_connections/      Django's backend in workers: a bot holds a connection only while it needs it
"""
