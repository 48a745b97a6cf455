"""The sample project. Copy it, or install its apps into a project of your own.

settings.py  all settings, in the order of the flow
urls.py      webhooks, chat page, admin, health
bots.py      the demo bot
logins.py    how often a login may fail
celery.py    the Celery application
wsgi.py      the entry point of web processes
web.py       adds to granian a time limit for bodies, and processes that start and end together
local/       `make run`
"""

from botproject.celery import app as celery_app

__all__ = ["celery_app"]
