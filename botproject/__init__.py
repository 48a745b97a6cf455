"""The sample project. Copy it, or install its apps into a project of your own.

settings.py   all settings, in the order of the flow
urls.py       webhooks, chat page, admin, health
bots.py       the demo bot
logins.py     how often a login may fail
passwords.py  how passwords are hashed
celery.py     the Celery application
wsgi.py       the entry point of web processes
web.py        adapts granian: whole answers, clean environs, connections that can be cut, a common end
local/        `make run`
"""

from botproject.celery import app as celery_app

__all__ = ["celery_app"]
