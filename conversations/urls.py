"""The core's own URLs: is it up?"""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conversations import health

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz/", health.healthz),
    path("healthz", health.healthz),
]
