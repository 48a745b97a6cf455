"""The web process's entry point."""

import os

from django.core.wsgi import get_wsgi_application

from botproject.web import guarded
from channels_ingest.front import ahead_of

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botproject.settings")
application = guarded(ahead_of(get_wsgi_application()))

from conversations import checks, collector, drain  # noqa: E402  (needs the apps)

checks.refuse_to_start()
drain.start()
collector.spare()
