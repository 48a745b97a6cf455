"""Waking, step 2: hints that a conversation has work, through Celery. Any of them may be lost.

queues.py           the names of the queues
wake.py             the only way in: hints, at once or at the end of a window, and the thread that rings
doorbell.py         hints and bells in Redis: ring, and the task's answer
publisher.py        tasks that go by no bell in Redis: probes, checkouts, the upkeep, another broker
redis_transport.py  kombu's transport for Redis, which drops what is no task
consumer.py         Celery's consumer, which reconnects quickly
"""
