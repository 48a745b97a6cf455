"""The staff's JSON API."""

from __future__ import annotations

from django.urls import URLPattern, path

from conversations.desk import api

urlpatterns: list[URLPattern] = [
    path("api/stuck/", api.Stuck.as_view()),
    path("api/conversations/<int:conversation_id>/", api.Conversation.as_view()),
]
