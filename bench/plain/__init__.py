"""The pipeline that a good team would write first: an ORM view, a task to handle, a task to deliver, a lock.

Kept small, and kept fair: connections are pooled and reused, duplicates are refused by a unique column, order is
kept per user, tasks are acknowledged late. It has no retries, limits, sweeps or compare-and-set.
"""
