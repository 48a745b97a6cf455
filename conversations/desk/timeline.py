"""The timeline of one conversation: messages, their turns and replies, and acts of staff, in order.

``version`` is the cursor of the live page: one indexed query whose value changes whenever the page
does.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import F, Q

from conversations.media import types
from conversations.media.files import read_id
from conversations.models import Audit, Conversation, ConversationState, Media, Message, Reply, Template, Turn
from conversations.postgres.sql_files import sql

# Messages of a window. Larger: the live page is slower. Smaller: reading back needs more clicks.
MESSAGES = 40
# Most turns, replies and acts of staff that are read for a window, each; more are not shown.
# Larger: a lane with many attempts makes the page slower.
BESIDE = 300


@dataclasses.dataclass(kw_only=True)
class Block:
    """One message with its turns and replies; or a reply or an act that belongs to no message."""

    key: str
    at: dt.datetime
    message: Message | None = None
    turns: Sequence[Turn] = ()
    replies: Sequence[Reply] = ()
    act: Audit | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A part of the timeline, oldest first.

    ``older`` is the number before which the next older part ends, None at the beginning of the
    conversation.
    """

    blocks: Sequence[Block]
    older: int | None


def version(conversation_id: int) -> str:
    """Return a value that changes with the newest window; '' if there is no conversation."""
    with connection.cursor() as cursor:
        cursor.execute(sql("read_version"), {"conversation": conversation_id})
        row = cursor.fetchone()
    return row[0] if row else ""


def state(conversation_id: int) -> ConversationState | None:
    """Return what the bot remembers, None where it remembers nothing."""
    return ConversationState.objects.filter(conversation_id=conversation_id).exclude(state={}).first()


class Answered(NamedTuple):
    """What waits while a person answers.

    ``waiting``: pending messages; ``answered``: the first ones of them that a person answered;
    ``by``: who wrote last.
    """

    waiting: int
    answered: int
    by: str | None


def answered(conversation_id: int) -> Answered:
    """Return what waits in this lane: what handing it back to the bot would skip or leave to it."""
    with connection.cursor() as cursor:
        cursor.execute(sql("count_answered"), {"conversation": conversation_id})
        return Answered(*cursor.fetchone())


def window(lane: Conversation, before: int | None = None) -> Window:
    """Return the newest messages, or those before ``before``, with all that belongs to them."""
    messages = _messages(lane, before)
    older = messages[0].sequence if len(messages) == MESSAGES and messages[0].sequence != 1 else None
    start = messages[0].received_at if older else None
    end = _first_moment(lane, before) if before else None
    beside = _Beside(lane, [message.pk for message in messages], start, end)
    blocks = _merge([_block(message, beside) for message in messages], beside.alone())
    _add_files(lane, blocks)
    _add_buttons(lane, blocks)
    return Window(blocks=blocks, older=older)


def _messages(lane: Conversation, before: int | None) -> list[Message]:
    """Return messages, oldest first; those that wait for a number come last."""
    numbered = Message.objects.filter(conversation=lane, sequence__isnull=False)
    if before:
        numbered = numbered.filter(sequence__lt=before)
    newest = list(numbered.order_by("-sequence")[:MESSAGES])[::-1]
    if before:
        return newest
    return newest + list(Message.objects.filter(conversation=lane, sequence__isnull=True).order_by("id")[:MESSAGES])


def _first_moment(lane: Conversation, sequence: int) -> dt.datetime | None:
    """Return when the message of this number came: an older window ends there."""
    return Message.objects.filter(conversation=lane, sequence=sequence).values_list("received_at", flat=True).first()


class _Beside:
    """What a window shows beside its messages: turns and replies by message, and acts of staff.

    Replies and acts that belong to no message are placed by their time, from ``start`` to
    ``end``.
    """

    def __init__(self, lane: Conversation, ids: list[int], start: dt.datetime | None, end: dt.datetime | None) -> None:
        self._ids = set(ids)
        self._start, self._end = start, end
        self.turns = _by_message(self._turns(lane), self._ids)
        replies = self._replies(lane)
        self.replies = _by_message(replies, self._ids)
        self._loose = [reply for reply in replies if reply.message_id is None and self._in_window(reply.created_at)]
        acts = (
            Audit.objects.filter(conversation_id=lane.pk).exclude(verb__in=["read", "answer"]).select_related("staff")
        )
        newest = acts.annotate(place=F("id") + 0).order_by("-place")[:BESIDE]  # + 0: by the conversation's index only
        self._acts = [act for act in newest if self._in_window(act.at)]

    def alone(self) -> list[Block]:
        """Return a block for each reply and act that belongs to no message, oldest first."""
        blocks = [Block(key=f"r{reply.pk}", at=reply.created_at, replies=[reply]) for reply in self._loose]
        blocks += [Block(key=f"a{act.pk}", at=act.at, act=act) for act in self._acts]
        return sorted(blocks, key=lambda block: block.at)

    def _turns(self, lane: Conversation) -> list[Turn]:
        """Read turns: for the newest window the end of an index, else those of its messages."""
        if self._end is None:
            newest = Turn.objects.raw(sql("read_turns"), {"conversation": lane.pk, "limit": BESIDE})
            return list(newest)[::-1]
        mine = Turn.objects.filter(conversation=lane, message_id__in=self._ids)
        return sorted(mine[:BESIDE], key=lambda turn: turn.pk)

    def _replies(self, lane: Conversation) -> list[Reply]:
        """Read the newest replies; for an older window only those of its messages and its time."""
        rows = Reply.objects.filter(conversation=lane).select_related("staff")
        if self._end is not None:
            loose = Q(message_id__isnull=True, created_at__gte=self._start or lane.created_at, created_at__lt=self._end)
            rows = rows.filter(Q(message_id__in=self._ids) | loose)
        return list(rows.order_by("-sequence")[:BESIDE])[::-1]

    def _in_window(self, moment: dt.datetime) -> bool:
        return (self._start is None or moment >= self._start) and (self._end is None or moment < self._end)


def _by_message(rows: Iterable[Any], ids: set[int]) -> dict[int, list[Any]]:
    """Group rows by their message, without those of messages outside the window."""
    groups: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        if row.message_id in ids:
            groups[row.message_id].append(row)
    return groups


def _block(message: Message, beside: _Beside) -> Block:
    turns, replies = beside.turns[message.pk], beside.replies[message.pk]
    return Block(key=f"m{message.pk}", at=message.received_at, message=message, turns=turns, replies=replies)


class File(NamedTuple):
    """An attachment, and its row if its file is one that we keep."""

    told: Mapping[str, Any]
    kept: Media | None

    @property
    def shows(self) -> str:
        """Return as what a page shows it: image, audio or video; '' as none."""
        is_stored = self.kept is not None and self.kept.status == Media.Status.STORED
        return types.SHOWN.get(self.kept.content_type, "") if self.kept and is_stored else ""


def has_file(lane: Conversation, file: Media) -> bool:
    """Return True if a file is one of this lane, or was sent there by a reply."""
    if file.conversation_id == lane.pk:
        return True
    named = Q(body__media__media=str(file.pk)) | Q(body__template__media__media=str(file.pk))
    return file.channel.tenant_id == lane.channel.tenant_id and Reply.objects.filter(named, conversation=lane).exists()


def _add_files(lane: Conversation, blocks: Iterable[Block]) -> None:
    """Give each message and reply its ``files``, read in one query for all."""
    told: list[tuple[Message | Reply, list[Mapping[str, Any]]]] = []
    for block in blocks:
        if block.message is not None:
            told.append((block.message, (block.message.payload or {}).get("attachments") or []))
        for reply in block.replies:
            media = (reply.body.get("template") or reply.body).get("media")
            told.append((reply, [media] if media else []))
    ids = [id for _, attachments in told for file in attachments if (id := read_id(file.get("media")))]
    rows = Media.objects.filter(pk__in=ids, channel__tenant=lane.channel.tenant_id) if ids else ()
    kept = {str(row.pk): row for row in rows}
    for row, attachments in told:
        vars(row)["files"] = [File(file, kept.get(str(file.get("media")))) for file in attachments]


def _add_buttons(lane: Conversation, blocks: Iterable[Block]) -> None:
    """Give each reply that is a template its ``buttons``, as the template has them now."""
    sent = [(reply, told) for block in blocks for reply in block.replies if (told := reply.body.get("template"))]
    names = [told["name"] for _, told in sent]
    rows = Template.objects.filter(channel=lane.channel_id, name__in=names) if names else ()
    shapes = {(row.name, row.language): row.shape for row in rows}
    for reply, told in sent:
        vars(reply)["buttons"] = shapes.get((told["name"], told["language"]), {}).get("buttons")


def _merge(messages: list[Block], alone: list[Block]) -> list[Block]:
    """Put each block without a message before the first message that came after it.

    Empties ``alone``.
    """
    merged: list[Block] = []
    for block in messages:
        while alone and alone[0].at < block.at:
            merged.append(alone.pop(0))
        merged.append(block)
    return merged + alone
