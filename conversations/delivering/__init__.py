"""Delivering, step 4: COMMIT the intent -> call the platform -> COMMIT the result.

sender.py       holds lanes, fetches their replies, decides what may start
lane.py         one lane in the sender's hands
limiter.py      the platforms' limits, shared by all senders through Redis
bulkhead.py     how many calls of one channel run at once
results.py      what a call's outcome means
send_stream.py  writes results together with the next intents
early_retry.py  retries early when a platform works again
"""
