"""The same flow on a job queue in Postgres: procrastinate, a job per message with ``lock=`` per user.

The view defers a job and answers; the job sends the reply to the platform. It keeps no state, does not de-duplicate and
records no replies, so it does less work than our pipeline.
"""
