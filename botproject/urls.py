"""The sample project's URLs: webhooks, chat page, health, staff's API, admin."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path(settings.ADMIN_PATH, admin.site.urls),
    path("", include("channels_ingest.urls")),
    path("", include("channels_ingest.webchat.urls")),
    path("", include("conversations.urls")),
    path("", include("conversations.desk.urls")),
]
