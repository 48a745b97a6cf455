"""The sample project with the careless bots."""

from botproject.settings import *  # noqa: F403
from botproject.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.telemetry.canary"]
