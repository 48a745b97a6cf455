"""The installation itself: its processes, and who did or read what."""

from __future__ import annotations

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
from conversations.desk.admin.windows import Walk, Window
from conversations.desk.templatetags.desk import age, clock, visible, words
from conversations.models import Audit, Conversation, Worker

SILENT_SECONDS = 6


class Short(Walk):
    """A list without numbers to walk by: the newest first, one page."""

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[str | Combinable]:
        return ["dead", "-started_at"]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.older = None


@admin.register(Worker)
class Workers(Window):
    action = "see_workers"
    channel_path = ""
    list_display = ("kind", "where", "state", "version", "lives_for", "last_beat", "in_hand")
    list_display_links = ("kind",)
    sortable_by = ()
    shown = ("incarnation", "kind", "host", "pid", "version", "state", "started_at", "beat", "beat_at", "running")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return Worker.objects.all()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Walk]:
        return Short

    def title_of(self, row: Worker) -> str:
        return visible(f"Worker {row.kind} {row.host}:{row.pid}")

    @admin.display(description="where")
    def where(self, row: Worker) -> str:
        return visible(f"{row.host}:{row.pid}")

    @admin.display(description="state")
    def state(self, row: Worker) -> str:
        if row.dead:
            return "dead"
        silent = (timezone.now() - row.beat_at).total_seconds()
        return "silent" if silent > SILENT_SECONDS else "lives"

    @admin.display(description="for")
    def lives_for(self, row: Worker) -> str:
        return age(row.started_at)

    @admin.display(description="last beat, ago")
    def last_beat(self, row: Worker) -> str:
        return age(row.beat_at)

    @admin.display(description="conversations in hand")
    def in_hand(self, row: Worker) -> int:
        return len(row.running)


@admin.register(Audit)
class AuditWindow(Window):
    channel_path = ""
    list_display = ("moment", "who", "did", "conversation", "subject_shown", "reason_shown")
    list_display_links = ("moment",)
    list_select_related = ("staff",)
    sortable_by = ()
    shown = ("at", "who", "did", "conversation", "subject", "reason")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """What this person did, and what was done to conversations that they may see."""
        rows = Audit.objects.select_related("staff")
        if access.is_superuser(request):
            return rows
        mine = Conversation.objects.filter(pk=OuterRef("conversation_id"), channel_id__in=access.channel_ids(request))
        return rows.filter(Q(staff=access.staff_of(request)) | Exists(mine))

    def title_of(self, row: Audit) -> str:
        return f"Audit entry {row.pk}"

    @admin.display(description="when")
    def moment(self, row: Audit) -> str:
        return clock(row.at)

    @admin.display(description="did")
    def did(self, row: Audit) -> str:
        return words(row.verb)

    @admin.display(description="who")
    def who(self, row: Audit) -> str:
        return visible(row.staff.get_username()) if row.staff else "a command"

    @admin.display(description="conversation")
    def conversation(self, row: Audit) -> str:
        if not row.conversation_id:
            return ""
        address = reverse("admin:conversations_conversation_change", args=[row.conversation_id])
        return format_html('<a href="{}">{}</a>', address, row.conversation_id)

    @admin.display(description="what")
    def subject_shown(self, row: Audit) -> str:
        return visible(row.subject)

    @admin.display(description="why")
    def reason_shown(self, row: Audit) -> str:
        return visible(row.reason)
