"""The core's own URLs: is it up, and how far behind is it?"""

from __future__ import annotations

from django.urls import URLPattern, path

from conversations.operating import health, metrics

urlpatterns: list[URLPattern] = [
    path("healthz/", health.healthz),
    path("healthz", health.healthz),
    path("metrics/", metrics.metrics),
]
