"""The web process's entry point."""

import os

from django.core.wsgi import get_wsgi_application

from botproject.web import guarded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botproject.settings")
application = guarded(get_wsgi_application())

from conversations import checks, drain  # noqa: E402  (needs the apps)

checks.refuse_to_start()
drain.start()
