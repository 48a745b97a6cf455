"""Narrowing lists; every filter names only what this person may see."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models.expressions import RawSQL
from django.http import HttpRequest

from conversations.desk import access, facts
from conversations.desk.templatetags.desk import visible
from conversations.postgres.sql_files import sql

STUCK = 1000  # those longest so
CHANNELS = 100  # more than that are searched for, not listed
AGES = {"60": "over a minute", "600": "over 10 minutes", "3600": "over an hour", "86400": "over a day"}
Rows = models.QuerySet[Any]


class ChannelFilter(admin.SimpleListFilter):
    title = "channel"
    parameter_name = "channel"
    lookup = "channel_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(channel.pk), visible(channel)) for channel in access.channels(request)[:CHANNELS]]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        value = self.value()
        return queryset.filter(**{self.lookup: int(value)}) if value and value.isdigit() else queryset


class ChannelOfConversationFilter(ChannelFilter):
    lookup = "conversation__channel_id"


class ModeFilter(admin.SimpleListFilter):
    title = "who answers"
    parameter_name = "mode"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("bot", "the bot"), ("human", "a person"), ("paused", "paused"), ("blocked", "blocked by its head")]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        narrow: dict[str, dict[str, Any]] = {
            "bot": {"mode": "bot"},
            "human": {"mode": "human"},
            "paused": {"paused_at__isnull": False},
            "blocked": {"blocked": True},
        }
        return queryset.filter(**narrow.get(self.value() or "", {}))


class StuckFilter(admin.SimpleListFilter):
    title = "stuck"
    parameter_name = "stuck"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "needs a person, or is late")]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        if self.value() != "yes":
            return queryset
        channels = access.channel_ids(request)
        return queryset.filter(pk__in=facts.find_stuck(channels, facts.look_around(channels), STUCK))


class OldestPendingFilter(admin.SimpleListFilter):
    title = "oldest pending"
    parameter_name = "pending"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(AGES.items())

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        if self.value() not in AGES:
            return queryset
        age = dt.timedelta(seconds=int(self.value() or 0))
        channels = access.channel_ids(request)
        return queryset.filter(pk__in=RawSQL(sql("find_old"), [channels, channels, age]))  # noqa: S611  (constant)


class OpenFilter(admin.SimpleListFilter):
    """Open items first: what is settled is asked for."""

    title = "settled"
    parameter_name = "settled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "open"), ("yes", "settled")]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        value = self.value()
        return queryset.filter(settled_at__isnull=value == "no") if value in ("yes", "no") else queryset
