"""Contacts: the people who write, their names and their conversations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from conversations.desk import access, actions, search
from conversations.desk.admin import filters
from conversations.desk.admin.columns import column
from conversations.desk.admin.windows import PER_PAGE, Window
from conversations.desk.templatetags.desk import visible
from conversations.models import Alias, Contact, Conversation


@admin.register(Contact)
class Contacts(Window):
    """People as the webhooks of a channel name them, with their conversations."""

    list_display = (
        "name_shown",
        "username_shown",
        "phone_shown",
        "email_shown",
        "language_shown",
        "where",
        "platform_user",
    )
    list_display_links = ("name_shown",)
    list_filter = (filters.ChannelFilter,)
    list_select_related = ("channel",)
    search_fields = ("name",)  # shows the box; ``get_search_results`` answers it
    search_help_text = "Name, phone, username, e-mail, or the platform's id"
    sortable_by = ()
    shown = ("channel", "name", "username", "phone", "email", "language", "user", "created_at")
    page_template = "admin/conversations/contact.html"
    name_shown = column("name", lambda row: row)
    username_shown = column("username", lambda row: row.username)
    phone_shown = column("phone", lambda row: row.phone)
    email_shown = column("e-mail", lambda row: row.email)
    language_shown = column("language", lambda row: row.language)
    where = column("channel", lambda row: row.channel)
    platform_user = column("id on the platform", lambda row: row.user)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """Find people by their conversations, through the indexes of ``search``."""
        if not search_term.strip():
            return queryset, False
        lanes = search.find(search_term, access.channel_ids(request))
        people = Conversation.objects.filter(pk__in=lanes).values_list("contact_id", flat=True)
        return queryset.filter(pk__in=list(people)), False

    def fields_of(self, row: Contact) -> Iterable[tuple[str, str, str]]:
        """Add the other ids under which the platform knows this person."""
        yield from super().fields_of(row)
        aliases = Alias.objects.filter(channel=row.channel_id, known_as=row.user, of=Alias.Of.USER).exclude(
            value=row.user
        )[:PER_PAGE]
        yield "also known as", visible(", ".join(alias.value for alias in aliases)) or "—", ""

    def show(self, request: HttpRequest, row: Any, template: str, context: dict[str, Any]) -> Any:
        """Add the person's conversations, the newest ones."""
        lanes = Conversation.objects.filter(contact=row).select_related("channel").order_by("-pk")[:PER_PAGE]
        return super().show(request, row, template, {**context, "lanes": lanes})

    def note_row(self, request: HttpRequest, row: Contact) -> None:
        tenant = row.channel.tenant_id
        actions.note_page(access.staff_of(request), "read", f"contact {row.pk}", tenant=tenant)

    def note_list(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        actions.note_page(access.staff_of(request), "read", "contacts", tenant=access.only_tenant(request))
