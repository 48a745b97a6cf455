"""Waking, step 2: hints that a conversation has work, through Celery. Any of them may be lost.

queues.py           the names of the queues
wake.py             the only place that publishes a hint
delayed_wake.py     a hint at the end of a settle window
redis_transport.py  kombu's transport for Redis, changed for hints
consumer.py         Celery's consumer, which reconnects quickly
"""
