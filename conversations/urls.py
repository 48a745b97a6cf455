"""The core's own URLs: is it up, and how far behind is it?"""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from conversations.desk import api
from conversations.operating import health, metrics

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz/", health.healthz),
    path("healthz", health.healthz),
    path("metrics/", metrics.metrics),
    path("api/stuck/", api.Stuck.as_view()),
    path("api/conversations/<int:conversation_id>/", api.Conversation.as_view()),
]
