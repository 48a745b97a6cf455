"""The sample project with the checker's bots. A planted bug (CHAOS_MUTANT) comes in through the app, see apps.py."""

from botproject.settings import *  # noqa: F403
from botproject.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos.apps.ChaosConfig"]
