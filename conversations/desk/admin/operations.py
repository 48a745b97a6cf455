"""Worker processes, and the audit: who did or read what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import starmap
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.expressions import Combinable
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from conversations.desk import access
from conversations.desk.admin import filters
from conversations.desk.admin.columns import column
from conversations.desk.admin.conversations import name_of
from conversations.desk.admin.windows import Walk, Window
from conversations.desk.templatetags.desk import actor, age, in_words, visible, words
from conversations.models import Audit, Conversation, Worker

# Seconds without a heartbeat after which a worker is shown as silent. Smaller: busy workers seem
# silent. Larger: dead ones seem alive for longer.
SILENT_SECONDS = 6


class WorkerList(Walk):
    """One page, the newest first: a worker's key is random, so the list cannot be read by id."""

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[str | Combinable]:
        return ["dead", "-started_at"]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.older = None


@admin.register(Worker)
class Workers(Window):
    """The life of each worker process: its last heartbeat, and how many conversations it holds."""

    action = "see_workers"
    channel_path = ""
    list_display = ("kind", "where", "state", "version", "lives_for", "last_beat", "in_hand")
    list_display_links = ("kind",)
    sortable_by = ()
    shown = (
        "incarnation",
        "kind",
        "host",
        "pid",
        "version",
        "state",
        "started_at",
        "heartbeats",
        "last_heartbeat",
        "running",
        "bots",
    )
    where = column("where", lambda row: f"{row.host}:{row.pid}")
    lives_for = column("for", lambda row: age(row.started_at))
    last_beat = column("last heartbeat, ago", lambda row: age(row.beat_at))
    heartbeats = column("heartbeats", lambda row: row.beat)
    in_hand = column("conversations in hand", lambda row: len(row.running))

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return Worker.objects.all()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Walk]:
        return WorkerList

    def title_of(self, row: Worker) -> str:
        return visible(f"Worker {row.kind} {row.host}:{row.pid}")

    @admin.display(description="state")
    def state(self, row: Worker) -> str:
        if row.dead:
            return "dead"
        silent = (timezone.now() - row.beat_at).total_seconds()
        return "silent" if silent > SILENT_SECONDS else "alive"

    def last_heartbeat(self, row: Worker) -> Any:
        return row.beat_at


class AuditList(Walk):
    """Entries with the conversations that they name, read in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        name_rows(request, self.result_list)


def name_rows(request: HttpRequest, rows: Iterable[Any]) -> None:
    """Give each entry ``lane`` and ``subject_in_words``, read in one query for all.

    ``lane`` is its conversation, None where this person may not see it. The subject's channel
    is given by name in place of an id.
    """
    ids = {row.conversation_id for row in rows if row.conversation_id}
    seen = Conversation.objects.filter(channel_id__in=access.channel_ids(request)).select_related("contact")
    lanes = seen.in_bulk(ids) if ids else {}
    names = {key: str(channel) for channel in access.channels(request) for key in (str(channel.pk), channel.public_id)}
    for row in rows:
        row.lane = lanes.get(row.conversation_id)
        _, target, rest = CHANNEL_SUBJECT.fullmatch(row.subject).groups()  # type: ignore[union-attr]
        row.subject_in_words = f"channel {names[target]}{rest}" if target in names else row.subject


# Subjects that name a channel: ``channel <public id>`` or, of a pause, ``channel <id>: sending``.
# Commands of version 0.1 wrote the public id alone. The pattern matches any text.
CHANNEL_SUBJECT = re.compile(r"(channel )?([^ :]*)(.*)", re.S)


@admin.register(Audit)
class AuditWindow(Window):
    """The audit: who did or read what, when and why. Entries are never changed."""

    channel_path = ""
    list_display = ("moment", "who", "did", "conversation", "subject_shown", "changes_shown", "reason_shown")
    list_display_links = ("moment",)
    list_filter = (filters.WhoFilter, filters.WhatFilter, filters.WhenFilter, filters.TenantFilter)
    list_select_related = ("staff",)
    sortable_by = ()
    shown = ("at", "who", "did", "lane_or_text", "subject_shown", "changes_shown", "reason_shown")
    moment = column("when", lambda row: in_words(row.at))
    did = column("what was done", lambda row: words(row.verb))
    who = column("who", actor)
    subject_shown = column("on", lambda row: row.subject_in_words)
    changes_shown = column("changes", lambda row: "; ".join(starmap(_change, (row.changes or {}).items())))
    reason_shown = column("why", lambda row: row.reason)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Return what was done in this person's tenants, and their own entries of no tenant."""
        rows = Audit.objects.select_related("staff")
        if access.is_superuser(request):
            return rows
        mine = Conversation.objects.filter(pk=OuterRef("conversation_id"), channel_id__in=access.channel_ids(request))
        tenant = Q(tenant_id__in=access.tenants(request)) | Exists(mine)  # entries of 0.1 name no tenant
        return rows.filter(Q(staff=access.staff_of(request), tenant_id=None, conversation_id=None) | tenant)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Walk]:
        return AuditList

    def find(self, request: HttpRequest, object_id: str) -> Any:
        """Return the entry with its conversation and subject, as the list has them."""
        row = super().find(request, object_id)
        name_rows(request, [row])
        return row

    def title_of(self, row: Audit) -> str:
        return f"Audit entry {row.pk}"

    @admin.display(description="conversation")
    def lane_or_text(self, row: Any) -> Conversation | str:
        """Return the entry's conversation; its number as text where this person may not see it."""
        return row.lane or (f"conversation {row.conversation_id}" if row.conversation_id else "")

    @admin.display(description="conversation")
    def conversation(self, row: Any) -> str:
        """Return a link to the entry's conversation; only text where this person may not see it."""
        if row.lane is None:
            return str(self.lane_or_text(row))
        address = reverse("admin:conversations_conversation_change", args=[row.lane.pk])
        return format_html('<a href="{}">{}</a>', address, name_of(row.lane))


def _change(name: str, values: list[Any] | None) -> str:
    """Say from what to what a setting changed.

    Of a credential only that it changed: its values are secret.
    """
    if values is None:
        return f"{name} changed"
    old, new = ("nothing" if value in (None, "") else json.dumps(value, ensure_ascii=False) for value in values)
    return f"{name}: {old} → {new}"
