"""The sample project's Celery application; its tasks are in ``conversations.tasks``."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botproject.settings")

app = Celery("botproject")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
