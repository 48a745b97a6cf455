"""A turn: a bot handles one message. Defines what a bot sees and does, and runs it.

A bot is a function ``def f(turn)`` or ``async def f(turn)``. It runs outside any transaction. Its
replies and its state become rows in the turn's one COMMIT. Its calls to other systems may repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import io
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.conf import settings
from django.db import connections

from conversations import runtime, templates
from conversations.choices import checked
from conversations.contracts import Attachment, Choice, Invoice, Names, ReplyBody, Struct
from conversations.errors import BadOutput, WrongFile
from conversations.media import adding, opening
from conversations.media.opening import Received
from conversations.postgres.bot_connections.base import NoConnection
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text, storable, storable_tree
from conversations.telemetry import error_places

# Most replies of one turn; with more, the turn fails. Larger: a bot in a loop sends more to one
# person; smaller: bots that answer with long lists fail.
REPLIES = 100
# Most bytes of a conversation's state as JSON; with more, the turn fails. Larger: each turn may
# read and write more; smaller: bots must keep their data elsewhere.
STATE_BYTES = 64 * 1024
# Most bytes of a turn's replies together, as JSON; with more, the turn fails. Larger: a turn holds
# up the other results of its transaction for longer (about 40 MB take the 2 s that a statement
# may take); smaller: bots that say much in one turn fail.
REPLIES_BYTES = 1024 * 1024
# Most errors that led to a turn's error that are looked at. Larger: more work for an odd error;
# smaller: a lack of connections can count as the message's failure.
CAUSES = 10


class Incoming(Struct, frozen=True):
    """The message of a turn. ``late``: messages that were sent after it are handled already."""

    id: int
    sequence: int
    kind: str
    text: str = ""
    payload: str = ""
    command: str = ""
    args: str = ""
    target: str = ""
    attachments: tuple[Received, ...] = ()
    sender: Mapping[str, Any] = {}
    platform_id: str = ""
    thread: str = ""
    late: bool = False
    data: Mapping[str, Any] = {}


class Person(Names, frozen=True):
    """The person who wrote."""

    user: str = ""

    @classmethod
    def of(cls, row: Any) -> Person:
        """Return the person in a row that has these columns; null is empty."""
        return cls(user=row.user, name=row.name or "", username=row.username or "", phone=row.phone or "",
                   email=row.email or "", language=row.language or "")  # fmt: skip


class Checkout(Struct, frozen=True):
    """A person is about to pay an invoice. What a bot's ``checkout`` function gets.

    ``payload``: the invoice's. ``amount``: in the smallest unit of ``currency``. ``details``: what
    the platform asked the person for (Telegram's ``order_info``: name, phone, address).
    """

    payload: str
    currency: str
    amount: int
    contact: Person
    details: Mapping[str, Any] = {}
    channel_id: int = 0
    platform: str = ""


class Task(Struct, frozen=True):
    """The input of a turn, as plain data, so that a child process can run it."""

    conversation_id: int
    channel_id: int
    bot: str
    message: Incoming
    contact: Person
    state: dict[str, Any]
    platform: str = ""


class Output(Struct, frozen=True):
    """The result of a turn.

    If ``error_type`` is set, the turn failed, and only the error's fields are used. ``is_shortage``:
    it failed because no connection to the database became free, which is nobody's attempt.
    """

    state: dict[str, Any] | None = None
    replies: tuple[ReplyBody, ...] = ()
    handed_over: str | None = None
    log: tuple[str, ...] = ()
    error_type: str = ""
    error_place: str = ""
    error_text: str = ""
    is_shortage: bool = False


class Turn:
    """What a bot gets: the message, its sender, the conversation's state, and ways to answer."""

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
        markdown: str = "",
        choices: Iterable[Choice | tuple[str, str] | str] = (),
        media: Attachment | str | Sequence[Attachment | str] = (),
        invoice: Invoice | None = None,
        template: templates.Template | None = None,
    ) -> None:
        """Add a reply. It is sent after the turn's COMMIT.

        ``markdown`` in place of ``text`` is shown with the marks that the platform has. Both at once
        raise ``ValueError``. ``choices`` are buttons: ``(id, title)`` or a title. ``media`` are
        URLs, or attachments: received ones, or what ``attach`` returned. Each but the last becomes a
        reply of its own; the last one goes with the text. An ``invoice`` or a ``template`` is a reply
        of its own, beside nothing else. Raises ``BadOutput`` for choices that cannot be offered
        (``choices.check``), and for a template that the channel cannot send (``templates.reply``).
        """
        if template is not None:
            _refuse_beside("a template", text, markdown, choices, media, invoice)
            self._replies.append(templates.reply(self.channel_id, self.platform, template))
            return
        if text and markdown:
            raise ValueError("turn.reply takes text or markdown, not both: text is sent as it is")
        if invoice is not None:
            _refuse_beside("an invoice", text, markdown, choices, media)
            checked_invoice = msgspec.convert(msgspec.to_builtins(invoice), Invoice)  # raises for a float
            self._replies.append(ReplyBody(text=checked_invoice.words, invoice=checked_invoice))
            return
        pieces = [media] if isinstance(media, str | Attachment) else list(media)
        attachments = [Attachment(kind="file", url=piece) if isinstance(piece, str) else piece for piece in pieces]
        for attachment in attachments[:-1]:
            self._replies.append(ReplyBody(media=attachment))
        last = attachments[-1] if attachments else None
        body = ReplyBody(text=str(text), markdown=str(markdown), choices=checked(choices), media=last)
        self._replies.append(body)

    def attach(self, content: bytes, name: str = "", *, kind: str = "") -> Attachment:
        """Keep a file and return it for ``reply(media=...)``. ``kind``: by default what its content is.

        A channel keeps the same content under the same name once, whoever gets it, and the platform gets it
        once. Raises ``WrongFile`` for one that is empty, a program, or over ``MEDIA_MAX_BYTES``. It waits for
        the storage: in an async bot, call it by ``sync_to_async``.
        """
        if len(content) > settings.MEDIA_MAX_BYTES:
            raise WrongFile(f"it is larger than {settings.MEDIA_MAX_BYTES >> 20} MB")
        id = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.channel_id}:{kind}:{name}:{hashlib.sha256(content).hexdigest()}")
        about: dict[str, Any] = {"id": id, "conversation_id": self.conversation_id}
        return adding.add(io.BytesIO(content), self.channel_id, name, kind=kind, **about)

    def hand_over(self, reason: str = "") -> None:
        """Let a person answer from the next message on. This turn's replies are still sent."""
        self._handed_over = str(reason)

    def history(self, n: int = 10) -> list[dict[str, Any]]:
        """Return the last ``n`` (200 at most) messages and replies before this message.

        Oldest first, each as ``{"by", "text", "at"}``.
        """
        values = {"id": self.conversation_id, "before": self.message.sequence, "n": max(0, min(n, 200))}
        return [{"by": by, "text": text, "at": at} for by, text, at in runtime.read(sql("fetch_history"), values)]

    def log(self, *words: Any) -> None:
        """Add a note for staff to the conversation's timeline in the admin.

        It may hold what people wrote: it is stored in the database and never logged.
        """
        self._log.append(clean_text(" ".join(map(str, words)), 1000))

    def output(self) -> Output:
        """Return the turn's result. Raises ``BadOutput`` if it cannot be stored."""
        _check(self.state, self._replies)
        return Output(
            state=self.state, replies=tuple(self._replies), handed_over=self._handed_over, log=tuple(self._log[:50])
        )


def _refuse_beside(what: str, *others: object) -> None:
    """Raise ``ValueError`` if a reply that stands alone has anything beside it."""
    if any(others):
        raise ValueError(f"turn.reply takes {what} alone: say other things in replies of their own")


def _check(state: Any, replies: Sequence[ReplyBody]) -> None:
    """Raise ``BadOutput`` for what Postgres would refuse, or for too much.

    Found here, it fails this turn alone; Postgres would refuse the whole batch of turns' results.
    """
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
    size = len(msgspec.json.encode(replies))
    if size > REPLIES_BYTES:
        raise BadOutput(f"the turn's replies are {size} bytes, {REPLIES_BYTES} at most")


def _storable(body: ReplyBody) -> bool:
    """Return True if Postgres can store all text of a reply."""
    return storable(body.text) and storable_tree(msgspec.to_builtins(body))


# ---------------------------------------------------------------- running one


def run(function: Callable[[Turn], Any], task: Task) -> Output:
    """Run a bot on a task, in this thread.

    What the bot raises, or an output that is refused, becomes an ``Output`` with ``error_type``.
    """
    turn = Turn(task)
    opening.begin(settings.TURN_SECONDS)
    try:
        answer = function(turn)
        if inspect.isawaitable(answer):
            asyncio.run(_await(answer))
        return turn.output()
    # Also SystemExit: a bot that calls exit() must not end the worker
    except BaseException as error:
        return failed(error)
    finally:
        close_connections()


async def run_async(function: Callable[[Turn], Any], task: Task) -> Output:
    """Run an ``async def`` bot on the process's one event loop. Failures end as in ``run``."""
    turn = Turn(task)
    opening.begin(settings.TURN_SECONDS)
    try:
        await _await(function(turn))
        return turn.output()
    # Also SystemExit, which would end the loop and every other bot on it
    except BaseException as error:
        return failed(error)


async def _await(answer: Any) -> Any:
    """Await what a bot returned. Its ``sync_to_async``, and so the async ORM, has its own thread."""
    with _own_thread():
        return await answer


@contextlib.contextmanager
def _own_thread() -> Iterator[None]:
    """Let ``sync_to_async`` run in a thread of this task, which it starts at its first use.

    Without this, all turns of the process would wait for one thread. It is not waited for: it may
    run code that the turn has given up.
    """
    context = ThreadSensitiveContext()
    SyncToAsync.thread_sensitive_context.set(context)
    try:
        yield
    finally:
        thread = SyncToAsync.context_to_thread_executor.pop(context, None)
        if thread is not None:
            thread.submit(close_connections)
            thread.shutdown(wait=False)


def close_connections() -> None:
    """Return the Django connections that the bot used to their pool: other bots wait for them.

    Where the bot left ``atomic`` open, Django would let no later turn of this thread connect.
    """
    for connection in connections.all(initialized_only=True):
        with contextlib.suppress(Exception):
            connection.close()
        if connection.in_atomic_block:
            del connections[connection.alias]


def failed(error: BaseException) -> Output:
    """Return a failed turn's output: the error's type, place and message.

    The message may hold what people wrote, so it goes into the database and never into logs.
    """
    try:
        words = clean_text(str(error), 2000)
    except BaseException:  # str() of an error runs its class's own code, which may even exit
        words = ""
    return Output(error_type=error_places.kind(error), error_place=error_places.place(error), error_text=words,
                  is_shortage=_is_shortage(error))  # fmt: skip


def _is_shortage(error: BaseException | None, depth: int = 0) -> bool:
    """Return True if no connection of ``BOT_CONNECTIONS`` became free; a bot may have wrapped that error."""
    if error is None or depth > CAUSES:
        return False
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__ or error.__context__,)
    return isinstance(error, NoConnection) or any(_is_shortage(each, depth + 1) for each in inner)
