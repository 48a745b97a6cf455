"""The life of a worker process.

supervisor.py  starts the processes of a formation and replaces those that end
lifecycle.py   begins and ends with Celery's signals
process.py     one incarnation: its row, its heartbeat, its engines
gc_tuning.py   keeps Python's garbage collector away from what stays loaded
"""
