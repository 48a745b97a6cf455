"""The web process's entry point."""

import os

from django.core.wsgi import get_wsgi_application

from botproject.web import guarded, refusing_for_good
from channels_ingest.webhooks.fast_path import ahead_of

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botproject.settings")
application = guarded(ahead_of(get_wsgi_application()))

from conversations.operating import checks  # noqa: E402  (needs the apps)
from conversations.storing import spool_drainer  # noqa: E402
from conversations.workers import gc_tuning  # noqa: E402

with refusing_for_good():
    checks.refuse_to_start()
spool_drainer.start()
gc_tuning.spare()
