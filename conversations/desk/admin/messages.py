"""Parked messages, and the two verbs that bring one back: unpark (once) and replay."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from conversations.desk import access, actions
from conversations.desk.admin import filters
from conversations.desk.admin.columns import OfConversation, WithoutPages, column
from conversations.desk.admin.proxies import ParkedMessage
from conversations.desk.admin.windows import Unlisted, Verb, number_in
from conversations.desk.templatetags.desk import age
from conversations.models import Message

PREVIEW_CHARACTERS = 120  # of a message's text in the list; larger: taller rows
UNPARK = "The bot handles the message once more, behind what waits; or in its place, if the conversation waits for it."
REPLAY = "The bot handles a copy of the message, behind what waits. The person may read its replies twice."


class Messages(OfConversation):
    """What the list of parked messages and the page of one message share."""

    channel_path = "conversation__channel_id"
    list_select_related = ("conversation__channel", "conversation__contact")
    shown = (
        "conversation", "sequence", "kind", "status", "text", "note", "received_at", "settled_at", "platform_id",
        "trace",
    )  # fmt: skip


@admin.register(ParkedMessage)
class ParkedMessages(Messages, WithoutPages):
    """The list of parked messages."""

    list_display = ("message", "person", "where", "preview", "note_shown", "since")
    list_display_links = ("message",)
    list_filter = (filters.ChannelOfConversationFilter,)
    message = column("message", lambda row: f"{row.conversation_id}/{row.sequence}")
    where = column("channel", lambda row: row.conversation.channel)
    preview = column("text", lambda row: row.text[:PREVIEW_CHARACTERS])
    note_shown = column("why", lambda row: row.note)
    since = column("for", lambda row: age(row.settled_at))

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).filter(parked=True)


@admin.register(Message)
class AllMessages(Messages, Unlisted):
    """The page of one message, with its verbs."""

    listed = "admin:conversations_conversation_changelist"
    verbs = {"unpark": "unpark", "replay": "replay"}

    def buttons(self, request: HttpRequest, row: Message) -> list[Verb]:
        """Offer to unpark a parked message, or to replay one that was handled or skipped.

        The form carries the number of the next replay, so that sending it twice replays
        once.
        """
        if row.status == Message.Status.PARKED:
            seen = {"epoch": row.conversation.epoch, "next_sequence": row.conversation.next_sequence}
            return [Verb(name="unpark", label="Unpark", help=UNPARK, address=self.address("unpark", row), hidden=seen)]
        if row.starts_turn and row.status in (Message.Status.HANDLED, Message.Status.SKIPPED):
            number = actions.next_replay(row)
            label = "Replay" if number == 1 else f"Replay, number {number}"
            address = self.address("replay", row)
            return [Verb(name="replay", label=label, help=REPLAY, address=address, hidden={"number": number})]
        return []

    def do_unpark(self, request: HttpRequest, message: Message) -> str:
        epoch, next_sequence = number_in(request, "epoch"), number_in(request, "next_sequence")
        seen = actions.Seen(conversation=message.conversation_id, epoch=epoch, next_sequence=next_sequence)
        return f"Message {message.sequence} comes again, as {actions.unpark(seen, access.staff_of(request), message)}."

    def do_replay(self, request: HttpRequest, message: Message) -> str:
        copy = actions.replay(access.staff_of(request), message, number_in(request, "number"))
        return f"Message {message.sequence} comes again, as {copy}."
