"""Authentic bytes that could not become a message, shown safely, and the verb that settles them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models.functions import Length
from django.http import HttpRequest

from conversations.desk import access, actions
from conversations.desk.admin import filters
from conversations.desk.admin.columns import column
from conversations.desk.admin.windows import Verb, Window
from conversations.desk.templatetags.desk import age, visible
from conversations.models import Quarantine

PREVIEW_BYTES = 4_000  # of an item that its page shows; larger: longer pages


@admin.register(Quarantine)
class QuarantineWindow(Window):
    """Items of the quarantine, until staff have looked at them and settled them."""

    list_display = ("item", "where", "why", "size", "seen", "since", "settled")
    list_display_links = ("item",)
    list_filter = (filters.ChannelFilter, filters.OpenFilter)
    list_select_related = ("channel",)
    sortable_by = ()
    shown = ("channel", "why", "created_at", "seen", "entry", "receipt_id", "size", "settled_at", "bytes_shown")
    verbs = {"settle": "settle_quarantine"}
    item = column("item", lambda row: f"item {row.pk}")
    where = column("channel", lambda row: row.channel)
    why = column("why", lambda row: row.reason)
    size = column("size", lambda row: f"{row.body_bytes:,} bytes")
    since = column("for", lambda row: age(row.created_at))
    settled = column("settled", lambda row: row.settled_at is not None, boolean=True)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Leave out the bytes and read their length: a list of them could take hundreds of MB."""
        return access.quarantine(request).defer("body").annotate(body_bytes=Length("body"))

    def note_row(self, request: HttpRequest, row: Quarantine) -> None:
        tenant = row.channel.tenant_id
        actions.note_page(access.staff_of(request), "read", f"quarantine {row.pk}", tenant=tenant)

    def title_of(self, row: Quarantine) -> str:
        return f"Item {row.pk} in quarantine"

    @admin.display(description="as text")
    def bytes_shown(self, row: Quarantine) -> str:
        """Return the beginning of the bytes as text; those that are not UTF-8 are escaped."""
        body = bytes(row.body)
        text = visible(body[:PREVIEW_BYTES].decode("utf-8", "backslashreplace"))
        return text + (f" … and {len(body) - PREVIEW_BYTES:,} bytes more" if len(body) > PREVIEW_BYTES else "")

    def buttons(self, request: HttpRequest, row: Any) -> list[Verb]:
        if row.settled_at:
            return []
        help = "The item leaves the open list. Its bytes are kept."
        address = self.address("settle", row)
        return [Verb(name="settle", label="Settle", help=help, ask="what it was", address=address)]

    def do_settle(self, request: HttpRequest, row: Quarantine) -> str:
        actions.settle_quarantine(row, access.staff_of(request), request.POST.get("note", ""))
        return "Settled. The bytes are kept."
