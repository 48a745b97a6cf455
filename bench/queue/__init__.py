"""The same flow on a job queue in Postgres: procrastinate, a job per message with ``lock=`` per user.

The view defers a job and answers; the job says the reply to the platform. No state, no de-duplication, no
record of replies: less work than ours does.
"""
