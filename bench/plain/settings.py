"""Django and Celery settings as most projects have them, with pooled connections."""

from __future__ import annotations

import os

import environ

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "bench.plain.web"
INSTALLED_APPS = ["bench.plain"]
MIDDLEWARE: list[str] = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": environ.Env.db_url_config(os.environ["DATABASE_URL"])}
DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 16}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGGING_CONFIG = None
API_BASE = os.environ.get("API_BASE", "")
