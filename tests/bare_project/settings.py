from botproject.settings import *  # noqa: F403
from botproject.settings import INSTALLED_APPS, WORKER_ROLE
from tests.bare_project import LEFT_OUT

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in LEFT_OUT]
if not WORKER_ROLE:
    ROOT_URLCONF = "tests.bare_project.urls"
