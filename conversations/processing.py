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
import heapq
import inspect
import itertools
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import redis
import structlog
from django.conf import settings

from conversations import acts, committer, database, failures, pauses, registry, trial, turns, wake
from conversations.clean import clean_text
from conversations.contracts import Attachment, ChannelConfig, Kind, ReplyBody
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.lock import Locks, free
from conversations.sqlfiles import sql

log = structlog.get_logger(__name__)

ATTEMPTS = 5
TURNS_PER_HOLD = 20
HOLD_SECONDS = 1.0
RETRY_SECONDS = 300.0
TASK_SECONDS = 0.05  # a task leaves slow turns to themselves after this
ASYNC_TURNS = 1_000  # on the loop at once; more wait, and with them the tasks that brought them
SORRY = "Sorry, something went wrong on our side. A colleague will get back to you."


# ---------------------------------------------------------------- what is read, what is written


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``fetch_heads.sql``."""

    id: int
    channel_id: int
    tenant_id: int
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
    offered: Any


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


class Finished(msgspec.Struct, frozen=True):
    """A verdict on its way to the database, with what is needed to judge again where the database refuses it."""

    verdict: Verdict
    head: Head
    channel: ChannelConfig | None = None


class Held:
    """One lane in this process's hands."""

    __slots__ = ("begun", "channel", "head", "id", "left", "life", "probe", "since", "turns", "void", "waits")

    def __init__(self, lane: int, left: Left, probe: bool, life: int) -> None:
        self.id, self.probe = lane, probe
        self.head: Head | None = None
        self.channel: ChannelConfig | None = None
        self.begun = 0.0  # when its turn began; 0: none is running
        self.void: Head | None = None  # a head whose turn was given up
        self.hold(left, life)

    def hold(self, left: Left, life: int) -> None:
        self.left, self.life = left, life  # the incarnation that took it, counted
        self.since = time.monotonic()
        self.turns = 0
        self.waits = True  # nothing of it has begun; its task waits for that

    def begin(self) -> None:
        """Its first turn has begun, or there is none to begin."""
        if self.waits:
            self.waits = False
            self.left.begin()

    def done(self) -> None:
        self.begin()
        self.left.done()


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
    """Takes lanes, runs their turns, commits them. One per process; ``handle`` is its door.

    ``announce`` writes the lanes in hand into the Worker row; False: it could not, so nothing may begin.
    """

    def __init__(
        self, writer: committer.Committer, locks: Locks, incarnation: uuid.UUID, announce: Callable[[], bool]
    ) -> None:
        self.writer = writer
        self.locks = locks
        self.incarnation = incarnation
        self.overdue = threading.Event()  # a turn never ended: this process wants to be replaced
        self._announce = announce
        self._life = 0
        self._stopping = False
        self._look: queue.SimpleQueue[tuple[str, Held]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(settings.TURN_THREADS, thread_name_prefix="turn")
        self._trials = ThreadPoolExecutor(trial.AT_ONCE, thread_name_prefix="trial")
        self._async_room = asyncio.Semaphore(ASYNC_TURNS)
        self._running: dict[int, Held] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="lanes", daemon=True).start()
        threading.Thread(target=self._watch, name="overdue", daemon=True).start()

    def handle(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Process the next messages of these lanes; returns when they are committed or only slow turns are left."""
        if self._closing():
            time.sleep(settings.TURN_SECONDS if self.overdue.is_set() else 0)  # wakes are for those who go on
            return
        failpoint("T1")
        life = self._life
        try:
            mine = self.locks.hold(conversation_ids) if locked else self.locks.hold_unlocked(conversation_ids)
        except redis.RedisError as error:
            log.warning("lanes not held", error=type(error).__name__, lanes=len(conversation_ids))
            return
        failpoint("T2")
        if not mine:
            return
        left = Left(len(mine))
        word = "look" if self._announce() else "leave"
        for lane in mine:
            self._look.put((word, Held(lane, left, probe, life)))
        left.wait()

    def begin_again(self, incarnation: uuid.UUID) -> None:
        """We were taken for dead: what has not begun is dropped; what runs is written if its lane is as it was."""
        with self._lock:
            self._life += 1
            self.incarnation = incarnation
            self.locks.token = str(incarnation)

    def stop(self, seconds: float) -> None:
        """Take nothing new; let running turns end and commit for up to ``seconds``, then free what is left."""
        self._stopping = True
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.locks.running():
            time.sleep(0.05)
        free(self.locks.kind, self.locks.token, self.locks.running())

    def _closing(self) -> bool:
        return self._stopping or self.overdue.is_set()

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
        again = set(self.locks.release([held.id for held in leaving], keep=not self._closing()))
        failpoint("T8")
        for held in leaving:
            held.done()
            held.hold(Left(1), self._life)
        return [held for held in leaving if held.id in again]

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
            try:
                self._begin(held)
            except Exception as error:  # the database went away, or a lane that nobody foresaw: not the others' fault
                kind, place = failures.kind(error), failures.place(error)
                log.warning("lane let go", conversation=held.id, error=kind, place=place)
                self._go([held])

    def _go(self, helds: Iterable[Held]) -> None:
        for held in helds:
            self._look.put(("leave", held))

    def _begin(self, held: Held) -> None:
        """What the head of a lane asks for."""
        head = held.head
        if head is None or not self._may_begin(held) or head.mode != "bot" or head.stopped:
            self._go([held])
        elif head.message_id is None:
            self._release_waiting(held, head)
        elif head.status != "pending":
            self._commit(held, Finished(_pass_over(head), head))
        elif (head.wait or 0) > 0 and not held.probe:
            self._go([held])
        elif not head.starts_turn:
            self._commit(held, Finished(_advance(head), head))
        else:
            self._begin_turn(held, head)

    def _may_begin(self, held: Held) -> bool:
        return not self._closing() and held.life == self._life and held.id not in self.locks.lost

    def _release_waiting(self, held: Held, head: Head) -> None:
        if head.release_in is None:
            self._go([held])
        elif head.release_in > 0:
            wake_later(held.id, head.tenant_id, head.release_in)
            self._go([held])
        else:
            self.writer.submit(RELEASE, head.id, lambda ticket: self._released(held, ticket))

    def _released(self, held: Held, ticket: committer.Ticket) -> None:
        """In the committer's thread. Refused (never seen): the sweeper comes back to it, not we at once."""
        self._look.put(("look" if ticket.error is None else "leave", held))

    def _begin_turn(self, held: Held, head: Head) -> None:
        channel = held.channel = registry.channel(head.channel_id)
        keys = pauses.handling_keys(channel.bot, channel.id, channel.tenant_id) if channel else ()
        if channel is None or not channel.active or (pauses.stopped(*keys) and not held.probe):
            self._go([held])
            return
        held.turns += 1
        try:
            task, function = _task(head, channel), registry.find_bot(channel.bot)
        except Exception as error:  # no such bot; a bots.py that does not import; a payload that nobody can read
            self._finish(held, head, channel, turns.failed(error), 0.0)
            return
        if head.kind == Kind.BUTTON and not head.attempts:
            acts.acknowledge(channel, head.user, head.chat, task.message.data)
        if head.suspect:
            self._trials.submit(self._run_trial, held, head, channel, task)
        elif inspect.iscoroutinefunction(function):
            asyncio.run_coroutine_threadsafe(self._run_async(held, head, channel, task, function), event_loop())
        else:
            self._threads.submit(self._run, held, head, channel, task, function)

    # ------------------------------------------------------------ running turns

    def _run(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task, function: Any) -> None:
        if self._start(held):
            self._finish(held, head, channel, turns.run(function, task), held.begun)

    async def _run_async(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task, function: Any) -> None:
        async with self._async_room:
            if not self._start(held):
                return
            began = held.begun
            output = await turns.run_async(function, task)
        await asyncio.to_thread(self._finish, held, head, channel, output, began)

    def _run_trial(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task) -> None:
        """Its last worker died: this turn runs in a process of its own, and only a crash there is its attempt."""
        if not self._may_begin(held):
            self._go([held])
            return
        held.begin()
        began = time.monotonic()
        output = trial.run(task)
        if output is None:
            self._go([held])
        else:
            self._finish(held, head, channel, output, began)

    def _start(self, held: Held) -> bool:
        """A thread is free for this turn, maybe long after it was looked at. False: it must not begin any more."""
        with self._lock:
            if self._may_begin(held):
                held.begun = time.monotonic()
                self._running[held.id] = held
        if not held.begun:
            self._go([held])
            return False
        held.begin()
        return True

    def _finish(self, held: Held, head: Head, channel: ChannelConfig, output: turns.Output, began: float) -> None:
        """A turn ended: its verdict goes to the committer. The result of a turn that was given up is void."""
        with self._lock:
            if held.void is head:
                return
            self._running.pop(held.id, None)
            held.begun = 0.0
        failpoint("T4")
        try:
            verdict = self._judge(head, channel, output, time.monotonic() - began if began else 0.0)
        except Exception as error:  # an adapter's split failed on this text: a failed turn of this conversation only
            verdict = self._judge(head, channel, turns.failed(error), 0.0)
        self._commit(held, Finished(verdict, head, channel))

    def _judge(self, head: Head, channel: ChannelConfig, output: turns.Output, seconds: float) -> Verdict:
        key = pauses.Key(pauses.BOT, channel.bot, pauses.HANDLING)
        record = {"worker": str(self.incarnation), "seconds": round(seconds, 6), "log": list(output.log) or None,
                  "state_before": head.state or None}  # fmt: skip
        if not output.error_type:
            verdict = _success(head, channel, output, {**record, "outcome": "committed"})
            pauses.succeeded(key)
            return verdict
        paused = pauses.failed(key, head.id, f"{output.error_type} at {output.error_place or 'an unknown place'}")
        log.warning("turn failed", conversation=head.id, sequence=head.sequence, trace=trace(head),
                    attempt=head.attempts + 1, bot=channel.bot, error=output.error_type, place=output.error_place,
                    paused=paused)  # fmt: skip
        record |= {"error_type": output.error_type, "error_place": output.error_place, "error_text": output.error_text,
                   "outcome": "paused" if paused else "failed"}  # fmt: skip
        return _failure(head, channel, record, paused)

    def _watch(self) -> None:
        """A turn over its time is a failed attempt at once; its process lets the others finish and is replaced."""
        try:
            while True:
                time.sleep(min(1.0, settings.TURN_SECONDS / 4))
                for held in self._late():
                    self._give_up(held)
        except BaseException as error:
            log.critical("overdue thread died", error=type(error).__name__, exc_info=True)
            committer.end_process()

    def _late(self) -> list[Held]:
        now = time.monotonic()
        with self._lock:
            late = [held for held in self._running.values() if now - held.begun > settings.TURN_SECONDS]
            for held in late:
                held.void, held.begun = held.head, 0.0
                del self._running[held.id]
        return late

    def _give_up(self, held: Held) -> None:
        head, channel = held.head, held.channel
        assert head is not None
        assert channel is not None
        self.overdue.set()
        error = turns.Output(error_type="TurnTooLong", error_place=channel.bot,
                             error_text=f"the turn took longer than {settings.TURN_SECONDS:g} s")  # fmt: skip
        self._commit(held, Finished(self._judge(head, channel, error, settings.TURN_SECONDS), head, channel))

    # ------------------------------------------------------------ committing

    def _commit(self, held: Held, finished: Finished) -> None:
        held.begin()
        self.writer.submit(TURNS, finished, lambda ticket: self._committed(held, ticket))

    def _committed(self, held: Held, ticket: committer.Ticket) -> None:
        """In the committer's thread, after COMMIT: nothing here may read the database."""
        failpoint("T6")
        if ticket.error is not None:
            log.error("turn not written", conversation=held.id, error=type(ticket.error).__name__)
            self._go([held])
            return
        word, behind, said = ticket.result
        head: Head = ticket.item.head
        log.info("handled", conversation=held.id, sequence=head.sequence, status=word, trace=trace(head))
        if said:
            wake.send([held.id], head.tenant_id)
        held.probe = False
        spent = held.turns >= TURNS_PER_HOLD or time.monotonic() - held.since > HOLD_SECONDS
        if behind and not spent:
            self._look.put(("look", held))
            return
        self._go([held])
        if behind or word == "moved":  # moved by somebody who may hold it now
            wake.handle([held.id], head.tenant_id)


def trace(head: Head) -> str:
    """The correlation id of a head's message, see ``models.Message.trace``."""
    return bytes(head.identity).hex()[:16]


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The one loop on which ``async def`` bots of this process run."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async-turns", daemon=True).start()
    return loop


def wake_later(conversation_id: int, tenant_id: int, seconds: float) -> None:
    """The one use of a countdown: a wake at the end of a settle window (2 s at most; else the sweeper comes)."""
    if seconds <= 2.0:
        _countdown().add(conversation_id, tenant_id, seconds + 0.005)


class Countdown:
    """One thread for all windows of a process."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, int, int, int]] = []
        self._tie = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="countdown", daemon=True).start()

    def add(self, conversation_id: int, tenant_id: int, seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._ends, (time.monotonic() + seconds, next(self._tie), conversation_id, tenant_id))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(self._ends[0][0] - time.monotonic() if self._ends else None)
                over = []
                while self._ends and self._ends[0][0] <= time.monotonic():
                    over.append(heapq.heappop(self._ends))
            for _, _, conversation_id, tenant_id in over:
                wake.handle([conversation_id], tenant_id)


@functools.cache
def _countdown() -> Countdown:
    return Countdown()


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
        payload=_chosen(payload.get("payload", ""), head.offered),
        **{name: payload.get(name, "") for name in ("command", "args", "target", "thread")},
        data=payload.get("data", {}),
    )
    person = turns.Person(user=head.user, name=head.name or "", username=head.username or "", phone=head.phone or "",
                          email=head.email or "", language=head.language or "")  # fmt: skip
    state = msgspec.json.decode(msgspec.json.encode(head.state)) if head.state else {}
    return turns.Task(conversation_id=head.id, channel_id=channel.id, bot=channel.bot, message=message, contact=person,
                      state=state, platform=channel.platform)  # fmt: skip


def _chosen(pressed: str, offered: Any) -> str:
    """A button's data; where it travelled as a digest (``Choice.short``), the choice of the reply that offered it."""
    choices = msgspec.convert(offered, ReplyBody).choices if offered else ()
    return next((choice.id for choice in choices if pressed in (choice.id, choice.short(1))), pressed)


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
    again: dict[str, Any] = {"bot": channel.bot, "turn": record}
    if attempts < ATTEMPTS:
        delay = random.uniform(0.05, min(RETRY_SECONDS, 2.0**attempts))
        return Verdict(**_base(head), **again, status="pending", advance=0, attempts_after=attempts, delay=delay)
    policy = channel.options.get("parked_policy", "human")
    return Verdict(
        **_base(head),
        status="parked",
        note=clean_text(
            f"the bot failed {attempts} times, last: {record['error_type']} at {record['error_place']}", 500
        ),
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

    def lane(self, item: Finished) -> Hashable:
        return item.verdict.id

    def mend(self, item: Finished, error: psycopg.Error) -> Finished | None:
        """What the database refuses is a failed turn of that conversation only: an attempt, and the last one parks."""
        verdict, turn = item.verdict, item.verdict.turn
        if turn is None or item.channel is None:
            return None
        if turn["outcome"] != "committed":  # the failure itself was refused: its bare mark
            note = "the database refused what was to be noted"
            bare = msgspec.structs.replace(verdict, turn=None, replies=None, note=note)
            return Finished(bare, item.head, item.channel)
        words = {"error_type": "DatabaseRefused", "error_place": error.sqlstate or ""}
        record = {**turn, **words, "outcome": "failed", "log": None}
        return Finished(_failure(item.head, item.channel, record, False), item.head, item.channel)

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Finished]) -> Sequence[Any]:
        verdicts = [item.verdict for item in items]
        for place, verdict in enumerate(verdicts):
            verdict.ord = place
        failpoint("T5")
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": [verdict.id for verdict in verdicts]}),
            "turns": (sql("commit_turns"), {"items": committer.as_json(verdicts)}),
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
        ((locked,),) = database.transaction(connection, statements)["lock"]
        ours = set(locked.split(","))
        return ["released" if str(item) in ours else committer.AGAIN for item in items]


TURNS = TurnStream()
RELEASE = ReleaseStream()
