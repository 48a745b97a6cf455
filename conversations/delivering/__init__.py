"""Delivering, step 4: COMMIT the intent -> call the platform -> COMMIT the result.

sender.py       holds lanes, fetches their replies, decides what may start
limiter.py      the platforms' limits, shared by all senders through Redis
bulkhead.py     how many calls of one channel run at once
results.py      what a call's ending means, and the stream that writes results
early_retry.py  a platform that works again: its waiting replies are due at once
"""
