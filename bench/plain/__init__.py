"""The pipeline that a good team would write first: an ORM view, a task to handle, a task to deliver, a lock.

It is small and fair: connections are pooled and reused, a unique column refuses duplicates, order is kept per user, and
tasks are acknowledged late. It has no retries, no limits, no sweeper and no compare-and-set.
"""
