"""A column of a list, and what the windows of messages and replies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from conversations.desk import access, actions
from conversations.desk.admin.windows import Window
from conversations.desk.templatetags.desk import visible


def column(label: str, value: Callable[[Any], Any], boolean: bool | None = None) -> Any:
    """Return a column of a list, or a line of a page: ``value`` of a row, safe to show.

    ``boolean``: a mark for yes or no instead.
    """

    @admin.display(description=label, boolean=boolean)
    def shown(window: Any, row: Any) -> Any:
        return value(row) if boolean else visible(value(row))

    return shown


class OfConversation(Window):
    """Rows of a conversation: who reads one has read there, and a verb leads back there."""

    sortable_by = ()
    person = column("with", lambda row: row.conversation.contact or row.conversation.user)

    def note_row(self, request: HttpRequest, row: Any) -> None:
        self.note_list(request, [row])

    def note_list(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        actions.note_reading([row.conversation_id for row in rows], access.staff_of(request))

    def after(self, request: HttpRequest, row: Any) -> str:
        """Return the conversation's page, where the row is seen among the others."""
        return reverse("admin:conversations_conversation_change", args=[row.conversation_id])


class WithoutPages(OfConversation):
    """A list whose rows have no page of their own."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Redirect to the conversation."""
        return self.redirect(self.after(request, self.find(request, object_id)))
