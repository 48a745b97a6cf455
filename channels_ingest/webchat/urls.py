"""Pages for people, then the API of the pages.

Each with or without the last slash, without a redirect.
"""

from __future__ import annotations

from django.urls import path, re_path

from channels_ingest.webchat import api, files, views

app_name = "webchat"
CHANNEL = r"(?P<public_id>[A-Za-z0-9_-]{1,40})"

urlpatterns = [
    path("", views.home, name="home"),
    re_path(rf"^chat/{CHANNEL}/?\Z", views.chat, name="chat"),
    re_path(rf"^chat/{CHANNEL}/widget/?\Z", views.preview, name="preview"),
    path("widget.js", views.widget_script, name="widget"),
    re_path(rf"^web/{CHANNEL}/session/?\Z", api.session, name="session"),
    re_path(rf"^web/{CHANNEL}/messages/?\Z", api.messages, name="messages"),
    re_path(rf"^web/{CHANNEL}/files/?\Z", files.upload, name="files"),
]
