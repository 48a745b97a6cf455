"""A turn: the bot handling one message. What a bot may see and do, and how it is run.

A bot is a plain function ``def f(turn)``, or ``async def``. It runs outside any transaction. What it
says and remembers is data until the turn's one COMMIT; calls that it makes to other systems can repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import connections

from conversations.contracts import Attachment, Choice, ReplyBody, Struct
from conversations.errors import BadOutput
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text, storable, storable_tree
from conversations.telemetry import error_places

REPLIES = 100
STATE_BYTES = 64 * 1024


class Incoming(Struct, frozen=True):
    """The message of a turn. ``late``: its place in the platform's order had passed."""

    id: int
    sequence: int
    kind: str
    text: str = ""
    payload: str = ""
    command: str = ""
    args: str = ""
    target: str = ""
    attachments: tuple[Attachment, ...] = ()
    sender: Mapping[str, Any] = {}
    platform_id: str = ""
    thread: str = ""
    late: bool = False
    data: Mapping[str, Any] = {}


class Person(Struct, frozen=True):
    """The person who writes, as far as the platform says."""

    user: str = ""
    name: str = ""
    username: str = ""
    phone: str = ""
    email: str = ""
    language: str = ""


class Task(Struct, frozen=True):
    """Everything that a turn needs, as data: it can be handed to another process."""

    conversation_id: int
    channel_id: int
    bot: str
    message: Incoming
    contact: Person
    state: dict[str, Any]
    platform: str = ""
    split: str = ""


class Output(Struct, frozen=True):
    """What a turn came to. ``error_type``: it failed, and nothing else counts."""

    state: dict[str, Any] | None = None
    replies: tuple[ReplyBody, ...] = ()
    handed_over: str | None = None
    log: tuple[str, ...] = ()
    error_type: str = ""
    error_place: str = ""
    error_text: str = ""


class Turn:
    """What a bot holds: ``message``, ``contact``, ``state`` and a few verbs."""

    def __init__(self, task: Task) -> None:
        self.message = task.message
        self.contact = task.contact
        self.state = task.state
        self.conversation_id = task.conversation_id
        self.channel_id = task.channel_id
        self.platform = task.platform
        self._replies: list[ReplyBody] = []
        self._log: list[str] = []
        self._handed_over: str | None = None

    def reply(
        self,
        text: str = "",
        *,
        choices: Iterable[Choice | tuple[str, str] | str] = (),
        media: Attachment | str | Sequence[Attachment | str] = (),
    ) -> None:
        """Say something. ``choices``: buttons, as ``(id, title)`` or a title alone; ``media``: URLs or attachments."""
        pieces = [media] if isinstance(media, str | Attachment) else list(media)
        attachments = [Attachment(kind="file", url=piece) if isinstance(piece, str) else piece for piece in pieces]
        for attachment in attachments[:-1]:
            self._replies.append(ReplyBody(media=attachment))
        last = attachments[-1] if attachments else None
        self._replies.append(ReplyBody(text=str(text), choices=tuple(map(_choice, choices)), media=last))

    def hand_over(self, reason: str = "") -> None:
        """Let a person answer from the next message on; what this turn says still goes out."""
        self._handed_over = str(reason)

    def history(self, n: int = 10) -> list[dict[str, Any]]:
        """The last ``n`` messages and replies before this one, oldest first: ``{"by", "text", "at"}``."""
        values = {"id": self.conversation_id, "before": self.message.sequence, "n": max(0, min(n, 200))}
        return [{"by": by, "text": text, "at": at} for by, text, at in database.read(sql("fetch_history"), values)]

    def log(self, *words: Any) -> None:
        """Note something for the timeline in the admin. It stays in the database; logs never hold it."""
        self._log.append(clean_text(" ".join(map(str, words)), 1000))

    def output(self) -> Output:
        """What the turn came to. Raises ``BadOutput`` for what cannot be stored."""
        _check(self.state, self._replies)
        return Output(
            state=self.state, replies=tuple(self._replies), handed_over=self._handed_over, log=tuple(self._log[:50])
        )


def _choice(value: Choice | tuple[str, str] | str) -> Choice:
    match value:
        case Choice():
            return value
        case str():
            return Choice(id=value, title=value)
    identity, title = value
    return Choice(id=str(identity), title=str(title))


def _check(state: Any, replies: Sequence[ReplyBody]) -> None:
    if not isinstance(state, dict):
        raise BadOutput("turn.state must stay a dict")
    try:
        encoded = msgspec.json.encode(state)
    except (TypeError, ValueError, RecursionError):
        raise BadOutput("turn.state holds something that is not JSON") from None
    if len(encoded) > STATE_BYTES:
        raise BadOutput(f"turn.state is {len(encoded)} bytes, {STATE_BYTES} at most")
    if not storable_tree(state) or not all(map(_storable, replies)):
        raise BadOutput("a NUL or a lone surrogate in state or replies")
    if len(replies) > REPLIES:
        raise BadOutput(f"{len(replies)} replies in one turn, {REPLIES} at most")


def _storable(body: ReplyBody) -> bool:
    return storable(body.text) and storable_tree(msgspec.to_builtins(body))


# ---------------------------------------------------------------- running one


def run(function: Callable[[Turn], Any], task: Task) -> Output:
    """Run a bot on a task, in this thread. Never raises: a failure is an ``Output`` with its error."""
    turn = Turn(task)
    try:
        answer = function(turn)
        if inspect.isawaitable(answer):
            asyncio.run(_await(answer))
        return turn.output()
    except BaseException as error:  # a bot that calls exit() fails, too; it does not end the worker
        return failed(error)
    finally:
        _give_back()


async def run_async(function: Callable[[Turn], Any], task: Task) -> Output:
    """The same for ``async def`` bots, on the process's one event loop."""
    turn = Turn(task)
    try:
        await function(turn)
        return turn.output()
    except BaseException as error:  # SystemExit in a task would end the loop, and with it every other bot
        return failed(error)
    finally:
        given = asyncio.get_running_loop().create_task(sync_to_async(_give_back)())
        _giving_back.add(given)
        given.add_done_callback(_giving_back.discard)


_giving_back: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly


def _give_back() -> None:
    """A bot's own connections go back to the small pool, at the end of the turn at the latest."""
    with contextlib.suppress(Exception):
        connections.close_all()


def failed(error: BaseException) -> Output:
    """An error as type, place and, for the database only, its words."""
    try:
        words = clean_text(str(error), 2000)
    except Exception:  # the words of an error are its class's own code
        words = ""
    return Output(error_type=error_places.kind(error), error_place=error_places.place(error), error_text=words)


async def _await(answer: Any) -> Any:
    return await answer
