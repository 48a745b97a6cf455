"""The sample project's URLs: webhooks, chat page, health, staff's API, admin."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("channels_ingest.urls")),
    path("", include("channels_ingest.webchat.urls")),
    path("", include("conversations.urls")),
    path("", include("conversations.desk.urls")),
    path(settings.ADMIN_PATH, admin.site.urls),  # last: it answers every address below ADMIN_PATH, which may be empty
]

# The admin without its last slash; APPEND_SLASH is off because a redirect loses the body of a webhook.
_admin_without_slash = settings.ADMIN_PATH.removesuffix("/")
if _admin_without_slash != settings.ADMIN_PATH:  # else the redirect would lead to itself
    urlpatterns.append(path(_admin_without_slash, RedirectView.as_view(pattern_name="admin:index", query_string=True)))
