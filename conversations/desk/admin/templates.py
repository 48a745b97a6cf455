"""Templates of channels as they look on a phone, and how a bot sends each."""

from __future__ import annotations

from typing import Any

import msgspec
from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from conversations.desk.admin import filters
from conversations.desk.admin.windows import Window
from conversations.desk.templatetags.desk import age, visible
from conversations.models import Template
from conversations.template_shapes import TemplateShape, slots
from conversations.templates import SENDABLE


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

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> HttpResponse:
        """Add what the template says, and the line of a bot that sends it."""
        shape = msgspec.convert(row.shape, TemplateShape)
        more = {"shape": shape, "code": code_of(row, shape), "sendable": row.status in SENDABLE}
        return super().show(request, row, template, {**context, **more})

    @admin.display(description="name")
    def name_shown(self, row: Template) -> str:
        return visible(row.name)

    @admin.display(description="language")
    def language_shown(self, row: Template) -> str:
        return visible(row.language)

    @admin.display(description="channel")
    def where(self, row: Template) -> str:
        return visible(row.channel)

    @admin.display(description="status")
    def state(self, row: Template) -> str:
        return visible(row.status) + ("; changed since it was fetched: fetch it again" if row.is_old else "")

    @admin.display(description="category")
    def category_shown(self, row: Template) -> str:
        return visible(row.category)

    @admin.display(description="quality")
    def quality_shown(self, row: Template) -> str:
        return visible(row.quality)

    @admin.display(description="fetched")
    def since(self, row: Template) -> str:
        return f"{age(row.fetched_at)} ago"


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
