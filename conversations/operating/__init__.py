"""What operators ask, and what must hold before a start.

checks.py            refuses a start that would break the promise
deploy_checks.py     refuses a public installation that is not safe or does not fit its database
migration_checks.py  refuses a migration that would stop the running version
health.py            /healthz/
metrics.py           /metrics/
webhook_counts.py    refused webhooks, and uses of a previous secret, by channel
delays.py            in which part the newest messages spent their time
"""
