"""Delivering, step 4: COMMIT the intent -> call the platform -> COMMIT the result.

sender.py       holds lanes, fetches their replies, does what is decided
lane.py         one lane in the sender's hands
decision.py     what a lane does next, and whether its reply may start; pure
limiter.py      the platforms' limits, shared by all senders through Redis
bulkhead.py     how many calls of one channel run at once
attempts.py     COMMIT the intent -> call -> COMMIT the result
calls.py        a call on a thread, and what its outcome means for the channel
results.py      what a call's outcome means for the reply
send_stream.py  writes results together with the next intents
early_retry.py  retries early when a platform works again
"""
