"""The life of a worker process.

supervisor.py  starts the processes of a formation and replaces those that end
lifecycle.py   begins and ends with Celery's signals
pulse.py       shows the supervisor that threads run
process.py     one incarnation: its row, its heartbeat, its engines
gc_tuning.py   makes Python's garbage collector skip what stays loaded
"""
