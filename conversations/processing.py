"""Handle: next message -> bot -> one COMMIT with state, replies, the "handled" mark and the next number.

    take      hold the lanes, fetch heads and states in one query
    run       each head's turn on a thread (or the event loop)
    commit    finished turns together, behind compare-and-set (sql/commit_turns.sql)
    go on     the lane's next head, or let go

**Invariant:** a result is written only where the lane is as it was read; else it is void.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue
import random
import threading
import time
import uuid
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import redis
import structlog
from django.conf import settings

from conversations import committer, database, pauses, registry, trial, turns, wake
from conversations.clean import clean_text
from conversations.contracts import Attachment, ChannelConfig, Kind, ReplyBody
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.lock import Locks
from conversations.sqlfiles import sql

log = structlog.get_logger(__name__)

ATTEMPTS = 5
TURNS_PER_HOLD = 20
HOLD_SECONDS = 1.0
RETRY_SECONDS = 300.0
TASK_SECONDS = 0.05  # a task leaves slow turns to themselves after this
SORRY = "Sorry, something went wrong on our side. A colleague will get back to you."


# ---------------------------------------------------------------- what is read, what is written


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``fetch_heads.sql``."""

    id: int
    channel_id: int
    chat: str
    user: str
    is_group: bool
    mode: str
    stopped: bool
    suspect: bool
    sequence: int
    last_sequence: int
    epoch: int
    attempts: int
    wait: float | None
    release_in: float | None
    message_id: int | None
    identity: Any
    kind: str | None
    status: str | None
    starts_turn: bool | None
    text: str | None
    payload: Any
    sender: Any
    platform_id: str | None
    received_at: Any
    late: bool | None
    state: Any
    version: int | None
    name: str | None
    username: str | None
    phone: str | None
    email: str | None
    language: str | None
    address: Any


class Verdict(msgspec.Struct, kw_only=True):
    """What becomes of a head: the expected lane, and the lane after. An item of ``commit_turns.sql``."""

    ord: int = -1
    id: int
    channel_id: int
    message_id: int
    sequence: int
    epoch: int
    attempts: int
    expect: str
    status: str
    note: str | None = None
    advance: int = 1
    attempts_after: int = 0
    delay: float | None = None
    mode: str | None = None
    epoch_step: int = 0
    blocked: bool = False
    state: dict[str, Any] | None = None
    bot: str | None = None
    version: int = 1
    replies: list[dict[str, Any]] | None = None
    turn: dict[str, Any] | None = None


class Held:
    """One lane in this process's hands."""

    __slots__ = ("begun", "head", "id", "left", "probe", "since", "turns", "void")

    def __init__(self, lane: int, left: Left, probe: bool) -> None:
        self.id, self.left, self.probe = lane, left, probe
        self.since = time.monotonic()
        self.turns = 0
        self.head: Head | None = None
        self.begun = 0.0  # when its turn began; 0: none is running
        self.void: Head | None = None  # a head whose turn was given up


class Left:
    """How many lanes of a task are not done; the task waits on it for a moment."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._unbegun = count
        self._condition = threading.Condition()

    def begin(self) -> None:
        with self._condition:
            self._unbegun -= 1
            if self._unbegun <= 0:
                self._condition.notify_all()

    def done(self) -> None:
        with self._condition:
            self._count -= 1
            if self._count <= 0:
                self._condition.notify_all()

    def wait(self) -> None:
        """Until all is done; or all has begun and only slow turns are left. A full pool blocks here."""
        with self._condition:
            self._condition.wait_for(lambda: self._count <= 0 or self._unbegun <= 0, timeout=settings.TURN_SECONDS)
            self._condition.wait_for(lambda: self._count <= 0, timeout=TASK_SECONDS)


# ---------------------------------------------------------------- the handler of a process


class Handler:
    """Takes lanes, runs their turns, commits them. One per process; ``handle`` is its door."""

    def __init__(self, writer: committer.Committer, locks: Locks, incarnation: uuid.UUID, announce: Any) -> None:
        self.writer = writer
        self.locks = locks
        self.incarnation = incarnation
        self.overdue = threading.Event()  # a turn never ended: this process wants to be replaced
        self._announce = announce  # writes the lanes in hand into the Worker row
        self._stopping = False
        self._look: queue.SimpleQueue[tuple[str, Held]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(settings.TURN_THREADS, thread_name_prefix="turn")
        self._trials = ThreadPoolExecutor(1, thread_name_prefix="trial")
        self._running: dict[int, Held] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="lanes", daemon=True).start()
        threading.Thread(target=self._watch, name="overdue", daemon=True).start()

    def handle(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Process the next messages of these conversations; returns when their turns are committed or only slow ones are left."""
        if self._stopping or self.overdue.is_set():
            return
        failpoint("T1")
        try:
            mine = self.locks.hold(conversation_ids) if locked else self.locks.hold_unlocked(conversation_ids)
        except redis.RedisError as error:
            log.warning("lanes not held", error=type(error).__name__, lanes=len(conversation_ids))
            return
        failpoint("T2")
        if not mine:
            return
        self._announce()
        left = Left(len(mine))
        for lane in mine:
            self._look.put(("look", Held(lane, left, probe)))
        left.wait()

    def stop(self, seconds: float) -> None:
        """Take nothing new; let running turns end and commit for up to ``seconds``."""
        self._stopping = True
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self.locks.running()):
            time.sleep(0.05)

    # ------------------------------------------------------------ looking at lanes

    def _serve(self) -> None:
        """One thread looks at lanes and lets them go, as many at a time as are ready."""
        try:
            while True:
                looking: list[Held] = []
                leaving: list[Held] = []
                for word, held in self._ready():
                    (looking if word == "look" else leaving).append(held)
                looking += self._leave(leaving)
                if looking:
                    self._take(looking)
        except BaseException as error:
            log.critical("lanes thread died", error=type(error).__name__, exc_info=True)
            committer.end_process()

    def _ready(self) -> Iterable[tuple[str, Held]]:
        ready = [self._look.get()]
        while len(ready) < 500:
            try:
                ready.append(self._look.get_nowait())
            except queue.Empty:
                break
        return ready

    def _leave(self, leaving: Sequence[Held]) -> list[Held]:
        """Release; a lane on which word was left is looked at again."""
        if not leaving:
            return []
        failpoint("T7")
        again = set(self.locks.release([held.id for held in leaving]))
        failpoint("T8")
        for held in leaving:
            held.left.done()
            held.since, held.turns, held.left = time.monotonic(), 0, Left(1)
        return [held for held in leaving if held.id in again and not self._stopping]

    def _take(self, looking: Sequence[Held]) -> None:
        try:
            rows = database.read(sql("fetch_heads"), {"ids": [held.id for held in looking]})
        except (psycopg.Error, CoreError) as error:
            log.warning("heads not read", error=type(error).__name__)
            time.sleep(0.2)
            self._go(looking)
            return
        heads = {row[0]: Head(*row) for row in rows}
        failpoint("T3")
        for held in looking:
            held.head = heads.get(held.id)
            self._begin(held)

    def _go(self, helds: Iterable[Held]) -> None:
        for held in helds:
            self._look.put(("leave", held))

    def _begin(self, held: Held) -> None:
        """What the head of a lane asks for."""
        held.left.begin()
        head = held.head
        if head is None or self._stopping or head.mode != "bot" or head.stopped:
            self._go([held])
        elif head.message_id is None or head.status == "waiting":
            self._release_waiting(held, head)
        elif head.status != "pending":
            self._commit(held, _pass_over(head))
        elif (head.wait or 0) > 0:
            self._go([held])
        elif not head.starts_turn:
            self._commit(held, _advance(head))
        else:
            self._begin_turn(held, head)

    def _release_waiting(self, held: Held, head: Head) -> None:
        if head.release_in is None:
            self._go([held])
        elif head.release_in > 0:
            wake_later(held.id, head.release_in)
            self._go([held])
        else:
            self.writer.submit(RELEASE, head.id, lambda ticket: self._look.put(("look", held)))

    def _begin_turn(self, held: Held, head: Head) -> None:
        channel = registry.channel(head.channel_id)
        keys = pauses.handling_keys(channel.bot, channel.id, channel.tenant_id) if channel else ()
        if channel is None or not channel.active or (pauses.stopped(*keys) and not held.probe):
            self._go([held])
            return
        held.turns += 1
        with self._lock:
            self._running[held.id] = held
        task = _task(head, channel)
        if head.suspect:
            self._trials.submit(self._run_trial, held, head, channel, task)
            return
        try:
            function = registry.find_bot(channel.bot)
        except CoreError as error:
            self._finish(held, head, channel, turns.failed(error), 0.0)
            return
        if inspect.iscoroutinefunction(function):
            self._run_async(held, head, channel, task, function)
        else:
            self._threads.submit(self._run, held, head, channel, task, function)

    # ------------------------------------------------------------ running turns

    def _run(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task, function: Any) -> None:
        began = held.begun = time.monotonic()
        output = turns.run(function, task)
        self._finish(held, head, channel, output, began)

    def _run_async(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task, function: Any) -> None:
        began = held.begun = time.monotonic()

        def done(future: Any) -> None:
            error = future.exception() if not future.cancelled() else asyncio.CancelledError()
            self._finish(held, head, channel, future.result() if error is None else turns.failed(error), began)

        asyncio.run_coroutine_threadsafe(turns.run_async(function, task), event_loop()).add_done_callback(done)

    def _run_trial(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task) -> None:
        """Its last worker died: this turn runs in a process of its own, and only a crash there is its attempt."""
        began = time.monotonic()
        self._finish(held, head, channel, trial.run(task), began)

    def _finish(self, held: Held, head: Head, channel: ChannelConfig, output: turns.Output, began: float) -> None:
        """A turn ended: its verdict goes to the committer. The result of a turn that was given up is void."""
        with self._lock:
            self._running.pop(held.id, None)
            if held.void is head:
                return
        held.begun = 0.0
        failpoint("T4")
        try:
            verdict = self._judge(head, channel, output, time.monotonic() - began if began else 0.0)
        except Exception as error:  # an adapter's split failed on this text: a failed turn of this conversation only
            verdict = self._judge(head, channel, turns.failed(error), 0.0)
        self._commit(held, verdict)

    def _judge(self, head: Head, channel: ChannelConfig, output: turns.Output, seconds: float) -> Verdict:
        key = pauses.Key(pauses.BOT, channel.bot, pauses.HANDLING)
        record = {"worker": str(self.incarnation), "seconds": round(seconds, 6), "log": list(output.log) or None,
                  "state_before": head.state or None}  # fmt: skip
        if not output.error_type:
            pauses.succeeded(key)
            return _success(head, channel, output, {**record, "outcome": "committed"})
        paused = pauses.failed(key, head.id, f"{output.error_type} at {output.error_place or 'an unknown place'}")
        log.warning("turn failed", conversation=head.id, sequence=head.sequence, trace=trace(head), bot=channel.bot,
                    error=output.error_type, place=output.error_place, attempt=head.attempts + 1, paused=paused)  # fmt: skip
        record |= {"error_type": output.error_type, "error_place": output.error_place, "error_text": output.error_text,
                   "outcome": "paused" if paused else "failed"}  # fmt: skip
        return _failure(head, channel, record, paused)

    def _watch(self) -> None:
        """A turn over its time is a failed attempt at once; its process lets the others finish and is replaced."""
        while True:
            time.sleep(min(1.0, settings.TURN_SECONDS / 4))
            with self._lock:
                late = [held for held in self._running.values() if held.begun and time.monotonic() - held.begun > settings.TURN_SECONDS]
                for held in late:
                    held.void = held.head
                    self._running.pop(held.id, None)
            for held in late:
                self._give_up(held)

    def _give_up(self, held: Held) -> None:
        head = held.head
        channel = registry.channel(head.channel_id) if head else None
        if head is None or channel is None:
            return
        self.overdue.set()
        error = turns.Output(error_type="TurnTooLong", error_place=channel.bot,
                             error_text=f"the turn took longer than {settings.TURN_SECONDS:g} s")  # fmt: skip
        self._commit(held, self._judge(head, channel, error, settings.TURN_SECONDS))

    # ------------------------------------------------------------ committing

    def _commit(self, held: Held, verdict: Verdict) -> None:
        self.writer.submit(TURNS, verdict, lambda ticket: self._committed(held, ticket))

    def _committed(self, held: Held, ticket: committer.Ticket) -> None:
        """In the committer's thread, after COMMIT."""
        failpoint("T6")
        if ticket.error is not None:
            log.error("turn not written", conversation=held.id, error=type(ticket.error).__name__)
            self._go([held])
            return
        word, behind, said = ticket.result
        if held.head is not None:
            log.info("handled", conversation=held.id, sequence=held.head.sequence, status=word, trace=trace(held.head))
        channel = registry.channel(ticket.item.channel_id) if said else None
        if channel is not None:
            wake.send([held.id], channel.tenant_id)
        held.probe = False
        spent = held.turns >= TURNS_PER_HOLD or time.monotonic() - held.since > HOLD_SECONDS
        if word == "moved" or (behind and not spent):
            self._look.put(("look", held))
            return
        self._go([held])
        if behind:
            wake.handle([held.id], _tenant(ticket.item.channel_id))


def _tenant(channel_id: int) -> int | None:
    channel = registry.channel(channel_id)
    return channel.tenant_id if channel else None


def trace(head: Head) -> str:
    """The correlation id of a head's message, see ``models.Message.trace``."""
    return bytes(head.identity).hex()[:16]


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The one loop on which ``async def`` bots of this process run."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async-turns", daemon=True).start()
    return loop


def wake_later(conversation_id: int, seconds: float) -> None:
    """The one use of a countdown: a wake at the end of a settle window (2 s at most; else the sweeper comes)."""
    if seconds <= 2.0:
        timer = threading.Timer(seconds + 0.005, wake.handle, ([conversation_id],))
        timer.daemon = True
        timer.start()


# ---------------------------------------------------------------- verdicts


def _task(head: Head, channel: ChannelConfig) -> turns.Task:
    payload = head.payload or {}
    message = turns.Incoming(
        id=head.message_id or 0,
        sequence=head.sequence,
        kind=head.kind or Kind.MESSAGE,
        text=head.text or "",
        attachments=tuple(msgspec.convert(item, Attachment) for item in payload.get("attachments", ())),
        sender=head.sender or {},
        platform_id=head.platform_id or "",
        late=bool(head.late),
        **{name: payload.get(name, "") for name in ("payload", "command", "args", "target", "thread")},
        data=payload.get("data", {}),
    )
    person = turns.Person(user=head.user, name=head.name or "", username=head.username or "", phone=head.phone or "",
                          email=head.email or "", language=head.language or "")  # fmt: skip
    state = msgspec.json.decode(msgspec.json.encode(head.state)) if head.state else {}
    return turns.Task(conversation_id=head.id, channel_id=channel.id, bot=channel.bot, message=message, contact=person,
                      state=state, platform=channel.platform)  # fmt: skip


def _base(head: Head) -> dict[str, Any]:
    return {"id": head.id, "channel_id": head.channel_id, "message_id": head.message_id, "sequence": head.sequence,
            "epoch": head.epoch, "attempts": head.attempts, "expect": head.status}  # fmt: skip


def _advance(head: Head) -> Verdict:
    """An event without a turn reached the head: handled, no bot."""
    return Verdict(**_base(head), status="handled")


def _pass_over(head: Head) -> Verdict:
    """The head was settled before it became one: parked or skipped in its place, or it stands for a hole."""
    channel = registry.channel(head.channel_id)
    blocks = head.status == "missing" and channel is not None and channel.options.get("gap_policy") == "block"
    return Verdict(**_base(head), status=head.status or "", advance=0 if blocks else 1, blocked=blocks)


def _success(head: Head, channel: ChannelConfig, output: turns.Output, record: dict[str, Any]) -> Verdict:
    adapter = registry.adapter(channel.platform)
    bodies = [part for body in output.replies for part in adapter.split(body)]
    handed_over = output.handed_over is not None
    return Verdict(
        **_base(head),
        status="handled",
        state=output.state if output.state != (head.state or {}) else None,
        bot=channel.bot,
        replies=[_said("bot", body) for body in bodies] or None,
        mode="human" if handed_over else None,
        epoch_step=1 if handed_over else 0,
        note=clean_text(f"handed over: {output.handed_over}", 500) if handed_over else None,
        turn=record,
    )


def _failure(head: Head, channel: ChannelConfig, record: dict[str, Any], paused: bool) -> Verdict:
    attempts = head.attempts if paused else head.attempts + 1
    if attempts < ATTEMPTS:
        delay = random.uniform(0.05, min(RETRY_SECONDS, 2.0**attempts))  # noqa: S311  (jitter)
        return Verdict(**_base(head), status="pending", advance=0, attempts_after=attempts, delay=delay, bot=channel.bot, turn=record)
    policy = channel.options.get("parked_policy", "human")
    return Verdict(
        **_base(head),
        status="parked",
        note=clean_text(f"the bot failed {attempts} times, last with {record['error_type']} at {record['error_place']}", 500),
        advance=0 if policy == "block" else 1,
        blocked=policy == "block",
        mode="human" if policy == "human" else None,
        epoch_step=1 if policy == "human" else 0,
        bot=channel.bot,
        replies=[_said("system", ReplyBody(text=channel.options.get("sorry_text") or SORRY))],
        turn=record,
    )


def _said(author: str, body: ReplyBody) -> dict[str, Any]:
    return {"author": author, "body": body}


# ---------------------------------------------------------------- the stream


class TurnStream:
    """One transaction for the finished turns of many lanes."""

    name = "turns"
    patient = True

    def lane(self, item: Verdict) -> Hashable:
        return item.id

    def mend(self, item: Verdict, error: psycopg.Error) -> Verdict | None:
        """What the database refuses is a failed turn of that conversation only."""
        if item.turn is None:
            return None
        base = {name: getattr(item, name) for name in ("id", "channel_id", "message_id", "sequence", "epoch", "attempts", "expect")}
        record = {"worker": item.turn["worker"], "seconds": 0, "outcome": "failed", "error_type": "DatabaseRefused",
                  "error_place": error.sqlstate or ""}  # fmt: skip
        return Verdict(**base, status="pending", advance=0, attempts_after=item.attempts + 1, delay=1.0, turn=record)

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Verdict]) -> Sequence[Any]:
        for place, item in enumerate(items):
            item.ord = place
        failpoint("T5")
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": [item.id for item in items]}),
            "turns": (sql("commit_turns"), {"items": committer.as_json(items)}),
        }
        rows = sorted(database.transaction(connection, statements)["turns"])
        return [committer.AGAIN if word == "busy" else (word, behind, said) for _, word, behind, said in rows]


class ReleaseStream:
    """Gives waiting messages their numbers at the end of windows and gaps."""

    name = "release"
    patient = True

    def lane(self, item: int) -> Hashable:
        return item

    def mend(self, item: int, error: psycopg.Error) -> int | None:
        return None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[int]) -> Sequence[Any]:
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": list(items)}),
            "release": (sql("release_lanes"), {"ids": None}),
        }
        database.transaction(connection, statements)
        return ["released"] * len(items)


TURNS = TurnStream()
RELEASE = ReleaseStream()
