"""The timeline of one conversation: messages with their turns and replies, and acts of staff, in order.

``version`` is the cursor of the live page: one indexed query whose value changes whenever the page does.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import F, Q

from conversations.models import Audit, Conversation, ConversationState, Message, Reply, Turn
from conversations.postgres.sql_files import sql

MESSAGES = 40  # per window; more make the live page slower, fewer need more clicks
BESIDE = 300  # turns, replies and acts read for a window, each; those beyond are not shown


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
    """A part of the timeline, oldest first. ``older``: ``before`` of the older part, None at the beginning."""

    blocks: Sequence[Block]
    older: int | None


def version(conversation_id: int) -> str:
    """Return a value that changes with the newest window; '' where the conversation does not exist."""
    with connection.cursor() as cursor:
        cursor.execute(sql("read_version"), {"conversation": conversation_id})
        row = cursor.fetchone()
    return row[0] if row else ""


def state(conversation_id: int) -> ConversationState | None:
    """Return what the bot remembers, None where it remembers nothing."""
    return ConversationState.objects.filter(conversation_id=conversation_id).exclude(state={}).first()


class Answered(NamedTuple):
    """What waits where a person answers: how many messages, how many of them were answered, who wrote last."""

    waiting: int
    answered: int
    by: str | None


def answered(conversation_id: int) -> Answered:
    """Return what handing back would find in this lane."""
    with connection.cursor() as cursor:
        cursor.execute(sql("count_answered"), {"conversation": conversation_id})
        return Answered(*cursor.fetchone())


def window(lane: Conversation, before: int | None = None) -> Window:
    """Return the newest messages, or those before number ``before``."""
    messages = _messages(lane, before)
    older = messages[0].sequence if len(messages) == MESSAGES and messages[0].sequence != 1 else None
    start = messages[0].received_at if older else None
    end = _first_moment(lane, before) if before else None
    beside = _Beside(lane, [message.pk for message in messages], start, end)
    blocks = [_block(message, beside) for message in messages]
    return Window(blocks=_merge(blocks, beside.alone()), older=older)


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
    return Message.objects.filter(conversation=lane, sequence=sequence).values_list("received_at", flat=True).first()


class _Beside:
    """Turns, replies and acts of a window, by message."""

    def __init__(self, lane: Conversation, ids: list[int], start: dt.datetime | None, end: dt.datetime | None) -> None:
        self._ids = set(ids)
        self._start, self._end = start, end
        self.turns = _grouped(self._turns(lane), self._ids)
        replies = self._replies(lane)
        self.replies = _grouped(replies, self._ids)
        self._loose = [reply for reply in replies if reply.message_id is None and self._is_inside(reply.created_at)]
        acts = (
            Audit.objects.filter(conversation_id=lane.pk).exclude(verb__in=["read", "answer"]).select_related("staff")
        )
        newest = acts.annotate(place=F("id") + 0).order_by("-place")[:BESIDE]  # + 0: by the conversation's index only
        self._acts = [act for act in newest if self._is_inside(act.at)]

    def alone(self) -> list[Block]:
        blocks = [Block(key=f"r{reply.pk}", at=reply.created_at, replies=[reply]) for reply in self._loose]
        blocks += [Block(key=f"a{act.pk}", at=act.at, act=act) for act in self._acts]
        return sorted(blocks, key=lambda block: block.at)

    def _turns(self, lane: Conversation) -> list[Turn]:
        """Read the end of an index for the newest window, the turns of the messages for an older one."""
        if self._end is None:
            newest = Turn.objects.raw(sql("read_turns"), {"conversation": lane.pk, "limit": BESIDE})
            return list(newest)[::-1]
        mine = Turn.objects.filter(conversation=lane, message_id__in=self._ids)
        return sorted(mine[:BESIDE], key=lambda turn: turn.pk)

    def _replies(self, lane: Conversation) -> list[Reply]:
        rows = Reply.objects.filter(conversation=lane).select_related("staff")
        if self._end is not None:
            loose = Q(message_id__isnull=True, created_at__gte=self._start or lane.created_at, created_at__lt=self._end)
            rows = rows.filter(Q(message_id__in=self._ids) | loose)
        return list(rows.order_by("-sequence")[:BESIDE])[::-1]

    def _is_inside(self, moment: dt.datetime) -> bool:
        return (self._start is None or moment >= self._start) and (self._end is None or moment < self._end)


def _grouped(rows: Iterable[Any], ids: set[int]) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        if row.message_id in ids:
            groups[row.message_id].append(row)
    return groups


def _block(message: Message, beside: _Beside) -> Block:
    turns, replies = beside.turns[message.pk], beside.replies[message.pk]
    return Block(key=f"m{message.pk}", at=message.received_at, message=message, turns=turns, replies=replies)


def _merge(messages: list[Block], alone: list[Block]) -> list[Block]:
    """Put each block without a message before the first message that came after it."""
    merged: list[Block] = []
    for block in messages:
        while alone and alone[0].at < block.at:
            merged.append(alone.pop(0))
        merged.append(block)
    return merged + alone
