"""What operators ask, what must hold before a start, and upkeep.

checks.py             refuses a start that would break the promise
deploy_checks.py      refuses a public installation that is not safe or does not fit its database
migration_checks.py   refuses a migration that would stop the running version
connection_budget.py  how many connections a formation opens
health.py             /healthz/
metrics.py            /metrics/
webhook_counts.py     refused webhooks, and uses of a previous secret, by channel
maintenance.py        partitions and retention
spool_tally.py        how many lines of the spool wait, since when
delays.py             in which part the newest messages spent their time
"""
