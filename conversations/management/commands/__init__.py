"""One file per command of `manage.py`.

check.py               Django's own check, which also asks the database
release.py             the Procfile's release: migrations, then the checks
adopt_database.py      takes over a database that belonged to another installation
set_tenant.py          for how long a tenant's files are kept
rotate_credentials.py  seals everything with the newest key
run_worker.py          the worker processes, supervised
run_turns.py           forks once per suspect turn; started by handling/isolated_turn.py
"""
