"""Templates of channels as they look on a phone, and how a bot sends each."""

from __future__ import annotations

from typing import Any

import msgspec
from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from conversations.desk.admin import filters
from conversations.desk.admin.columns import column
from conversations.desk.admin.windows import Window
from conversations.desk.templatetags.desk import age
from conversations.models import Template
from conversations.template_shapes import TemplateShape, slots
from conversations.templates import SENDABLE

CHANGED = "; changed since it was fetched: fetch it again"


@admin.register(Template)
class Templates(Window):
    """Templates as they were fetched. Read-only: they are written and approved at the platform."""

    list_display = ("name_shown", "language_shown", "state", "category_shown", "quality_shown", "where", "since")
    list_display_links = ("name_shown",)
    list_filter = (filters.ChannelFilter,)
    list_select_related = ("channel",)
    sortable_by = ()
    shown = ("channel", "name", "language", "state", "category", "quality", "account", "fetched_at")
    page_template = "admin/conversations/template.html"
    name_shown = column("name", lambda row: row.name)
    language_shown = column("language", lambda row: row.language)
    where = column("channel", lambda row: row.channel)
    state = column("status", lambda row: row.status + (CHANGED if row.is_old else ""))
    category_shown = column("category", lambda row: row.category)
    quality_shown = column("quality", lambda row: row.quality)
    since = column("fetched", lambda row: f"{age(row.fetched_at)} ago")

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        """Add what the template says, and the line of a bot that sends it."""
        shape = msgspec.convert(row.shape, TemplateShape)
        more = {"shape": shape, "code": code_of(row, shape), "sendable": row.status in SENDABLE}
        return super().show(request, row, template, {**context, **more})


def code_of(row: Template, shape: TemplateShape) -> str:
    """Return the line of a bot that sends a template; '' if it cannot be filled."""
    if shape.odd:
        return ""
    values = [
        f'"{name}": Attachment(kind="{slot.media}", ...)' if slot.media else f'"{name}": "..."'
        for name, slot in slots(shape).items()
    ]
    given = f", values={{{', '.join(values)}}}" if values else ""
    return f'turn.reply(template=Template("{row.name}", language="{row.language}"{given}))'
