"""The sample project: settings, URLs, and a demo bot. Copy it, or install the two apps into your own."""

from botproject.celery import app as celery_app

__all__ = ["celery_app"]
