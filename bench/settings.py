"""The sample project's settings, with a page that sleeps."""

from botproject.settings import *  # noqa: F403
from botproject.settings import WORKER_ROLE

if not WORKER_ROLE:
    ROOT_URLCONF = "bench.urls"
