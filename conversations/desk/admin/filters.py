"""Filters of the lists. Each offers only what this person may see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils import timezone

from conversations.desk import access, facts
from conversations.desk.templatetags.desk import STOPS, visible, words
from conversations.models import Conversation, Tenant
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import read_number

# Most stuck conversations that the filter finds, those that wait longest. Larger: a slower list.
STUCK = 1000
# Most channels, and most tenants, that a filter offers. The address takes the id of any other.
# Larger: longer menus.
CHANNELS = 100
# Ages of the oldest pending message that a filter offers, by seconds.
AGES = {"60": "over a minute", "600": "over 10 minutes", "3600": "over an hour", "86400": "over a day"}
# Most people that the filter of the audit offers; as for ``CHANNELS``.
PEOPLE = 200
PERIODS = {"1": "last hour", "24": "last 24 hours", "168": "last 7 days", "720": "last 30 days"}  # by hours
# What ``Audit.verb`` may hold, in the order of a day's work.
VERBS = (
    "read", "search", "take_over", "answer", "hand_back", "retry", "skip", "park", "unpark", "replay", "pause",
    "resume", "opt_out", "opt_in", *sorted(STOPS), "wake", "decide_sent", "decide_resend", "resend", "cancel",
    "settle_quarantine", "start_pause", "end_pause", "set_credentials", "switch_on", "switch_off", "add channel",
    "change channel", "add app", "change app", "give_role", "take_role", "set_tenant", "adopt_database", "add user",
    "change user", "delete user", "add group", "change group", "delete group",
)  # fmt: skip
Rows = models.QuerySet[Any]


class ChannelFilter(admin.SimpleListFilter):
    """Rows of one channel. ``lookup`` leads from a row to its channel's id."""

    title = "channel"
    parameter_name = "channel"
    lookup = "channel_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(channel.pk), visible(channel)) for channel in access.channels(request)[:CHANNELS]]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        channel = read_number(self.value() or "")
        return queryset if channel is None else queryset.filter(**{self.lookup: channel})


class ChannelOfConversationFilter(ChannelFilter):
    lookup = "conversation__channel_id"


class WordFilter(admin.SimpleListFilter):
    """A filter that offers everybody the same: value -> label. Another value filters nothing."""

    offers: Mapping[str, str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.offers.items())

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        value = self.value() or ""
        return queryset.filter(**self.narrow(request, value)) if value in self.offers else queryset

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        """Return the lookups of the rows with this value."""
        raise NotImplementedError


class ModeFilter(WordFilter):
    title = "who answers"
    parameter_name = "mode"
    offers = {"bot": "the bot", "human": "a person", "paused": "paused", "blocked": "blocked by its head"}

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        others: dict[str, dict[str, Any]] = {"paused": {"paused_at__isnull": False}, "blocked": {"blocked": True}}
        return others.get(value, {"mode": value})


class StuckFilter(WordFilter):
    """Conversations of the page "Stuck", as a filter of the list."""

    title = parameter_name = "stuck"
    offers = {"yes": "needs a person, or is late"}

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        channels = access.channel_ids(request)
        return {"pk__in": facts.find_stuck(channels, facts.look_around(channels), STUCK)}


class OldestPendingFilter(WordFilter):
    """Conversations whose next message has been pending for longer than an age."""

    title = "oldest pending"
    parameter_name = "pending"
    offers = AGES

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        channels, age = access.channel_ids(request), dt.timedelta(seconds=int(value))
        return {"pk__in": RawSQL(sql("find_old"), [channels, channels, age])}  # noqa: S611  (constant)


class OpenFilter(WordFilter):
    """Open or settled items."""

    title = parameter_name = "settled"
    offers = {"no": "open", "yes": "settled"}

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        return {"settled_at__isnull": value == "no"}


class WhoFilter(admin.SimpleListFilter):
    title = "who"
    parameter_name = "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        people = User.objects.filter(is_staff=True)
        if not access.is_superuser(request):
            people = people.filter(tenantstaff__tenant__in=access.tenants(request)).distinct()
        found = people.order_by("username").values_list("pk", "username")[:PEOPLE]
        return [("command", "a command, the person or the platform"), *((str(pk), visible(name)) for pk, name in found)]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        if self.value() == "command":
            return queryset.filter(staff=None)
        person = read_number(self.value() or "")
        return queryset if person is None else queryset.filter(staff=person)


class WhatFilter(WordFilter):
    title = "what was done"
    parameter_name = "what"
    offers = {verb: words(verb) for verb in VERBS}

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        return {"verb": value}


class WhenFilter(WordFilter):
    title = parameter_name = "when"
    offers = PERIODS

    def narrow(self, request: HttpRequest, value: str) -> dict[str, Any]:
        return {"at__gt": timezone.now() - dt.timedelta(hours=int(value))}


class TenantFilter(admin.SimpleListFilter):
    title = "tenant"
    parameter_name = "tenant"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = Tenant.objects.all()
        if not access.is_superuser(request):
            rows = rows.filter(pk__in=access.tenants(request))
        return [(str(pk), visible(name)) for pk, name in rows.order_by("name").values_list("pk", "name")[:CHANNELS]]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Keep the entries of one tenant.

        Version 0.1 wrote no tenant into them: there the conversation tells it.
        """
        tenant = read_number(self.value() or "")
        if tenant is None:
            return queryset
        lanes = Conversation.objects.filter(pk=OuterRef("conversation_id"), channel__tenant=tenant)
        return queryset.filter(Q(tenant_id=tenant) | Q(Exists(lanes), tenant_id=None))
