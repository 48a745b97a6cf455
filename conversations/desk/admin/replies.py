"""Replies that need a decision of staff: outcome unknown, refused by the platform, failed later."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from conversations.desk import access, actions
from conversations.desk.admin import filters
from conversations.desk.admin.columns import OfConversation, WithoutPages, column
from conversations.desk.admin.proxies import ReplyForStaff
from conversations.desk.admin.windows import Unlisted, Verb
from conversations.desk.templatetags.desk import age
from conversations.models import Reply

PREVIEW_CHARACTERS = 120  # of a reply's text in the list; larger: taller rows
# States in which a reply needs a person, the condition of the index reply_for_staff.
FOR_STAFF = (Reply.Status.PARKED, Reply.Status.UNKNOWN, Reply.Status.FAILED)


class Replies(OfConversation):
    """What the list of replies and the page of one reply share."""

    list_select_related = ("conversation__contact", "channel")
    shown = (
        "conversation", "sequence", "author", "status", "words", "error", "attempts", "created_at", "settled_at",
        "platform_id",
    )  # fmt: skip
    words = column("words", lambda row: row.body.get("text", ""))


@admin.register(ReplyForStaff)
class RepliesForStaff(Replies, WithoutPages):
    """The list of replies that staff must look at."""

    list_display = ("reply", "person", "where", "preview", "status", "error_shown", "since")
    list_display_links = ("reply",)
    list_filter = (filters.ChannelFilter,)
    reply = column("reply", lambda row: f"{row.conversation_id}/{row.sequence}")
    where = column("channel", lambda row: row.channel)
    preview = column("words", lambda row: row.body.get("text", "")[:PREVIEW_CHARACTERS])
    error_shown = column("error", lambda row: row.error)
    since = column("for", lambda row: age(row.created_at))

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        waiting = models.Q(status=Reply.Status.UNKNOWN, not_before__isnull=False)  # a status may still come
        return super().get_queryset(request).filter(status__in=FOR_STAFF).exclude(waiting)


@admin.register(Reply)
class AllReplies(Replies, Unlisted):
    """The page of one reply, with its verbs."""

    listed = "admin:conversations_replyforstaff_changelist"
    verbs = {
        "sent": "decide_unknown_reply",
        "again": "decide_unknown_reply",
        "resend": "resend_reply",
        "cancel": "cancel_reply",
    }

    def buttons(self, request: HttpRequest, row: Reply) -> list[Verb]:
        return [self._verb(name, row) for name in BUTTONS.get(row.status, ())]

    def _verb(self, name: str, reply: Reply) -> Verb:
        label, help = WORDS[name]
        ask = "why" if name == "cancel" else ""
        return Verb(name=name, label=label, help=help, address=self.address(name, reply), ask=ask)

    def do_sent(self, request: HttpRequest, reply: Reply) -> str:
        actions.decide_unknown_reply(reply, access.staff_of(request), sent=True)
        return f"Reply {reply.sequence} arrived; the next one goes out."

    def do_again(self, request: HttpRequest, reply: Reply) -> str:
        actions.decide_unknown_reply(reply, access.staff_of(request), sent=False)
        return f"Reply {reply.sequence} is sent again."

    def do_resend(self, request: HttpRequest, reply: Reply) -> str:
        actions.resend_reply(reply, access.staff_of(request))
        return f"The words of reply {reply.sequence} are sent again, as a new reply."

    def do_cancel(self, request: HttpRequest, reply: Reply) -> str:
        actions.cancel_reply(reply, access.staff_of(request), request.POST.get("note", ""))
        return f"Reply {reply.sequence} is set aside."


# The buttons of a reply: verb -> its label, and what it does.
WORDS = {
    "sent": ("It arrived", "The reply reached the person; the next one follows."),
    "again": ("Send it again", "The same reply is sent once more. The person may see it twice."),
    "resend": ("Send again", "The same words are sent as a new reply, in your name."),
    "cancel": ("Set aside", "The reply is never sent and leaves the list of open replies."),
}
# State of a reply -> the verbs that it allows.
BUTTONS: dict[str, tuple[str, ...]] = {
    Reply.Status.UNKNOWN: ("sent", "again"),
    Reply.Status.PARKED: ("resend", "cancel"),
    Reply.Status.FAILED: ("resend", "cancel"),
    Reply.Status.EXPIRED: ("resend",),
    Reply.Status.PENDING: ("cancel",),
}
