"""Handles messages: next message -> bot -> one COMMIT of state, replies, mark and next number.

1. Hold the lanes; read their heads and states in one query.
2. Run each head's turn on a thread, on the event loop, or in a process of its own.
3. Commit finished turns together, each behind a compare-and-set (sql/commit_turns.sql).
4. Go on to the lane's next head, or release the lane.

**Invariant:** a result is written only where the lane is as it was read; else it is void.

More than 350 lines in one file: the steps share the lane's state and its lock.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import redis
import structlog
from django.conf import settings

from conversations import registry, runtime, turns
from conversations.concurrency import Stage, vital_thread
from conversations.contracts import ChannelConfig, Kind, Work
from conversations.errors import CoreError, NotStored
from conversations.failpoints import failpoint
from conversations.handling import acknowledgements, isolated_turn, verdicts
from conversations.handling.async_turns import Holder, enter, event_loop
from conversations.handling.backpressure import ROOM_SECONDS, Backpressure
from conversations.handling.turn_stream import RELEASE, TURNS, Committed
from conversations.handling.turn_threads import TurnThreads
from conversations.handling.verdicts import Finished, Head, Verdict
from conversations.lanes import pauses
from conversations.lanes.lock import Locks, free
from conversations.postgres import committer, database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Ticket
from conversations.telemetry import error_places, logs
from conversations.waking import delayed_wake, wake

log = structlog.get_logger(__name__)

# Turns of a lane (conversation) before it is released, so that other lanes get its place. Larger:
# fewer locks and wakes for a long backlog; smaller: other lanes wait less.
TURNS_PER_HOLD = 20
# Seconds after which a lane is released although more messages wait, for the same reason. Longer:
# fewer locks and wakes for a long backlog; shorter: other lanes wait less.
HOLD_SECONDS = 1.0
# The same in seconds while tasks wait for lanes to be released; the lane is woken again. Longer:
# those tasks wait longer; shorter: more wakes.
SHORT_HOLD_SECONDS = 0.1
# Lanes read in one query at most. Larger: fewer queries, and the first lane of a batch waits longer
# for the rest; smaller: more queries.
LANES_PER_READ = 64
# Threads that judge the results of async turns. Larger: a burst of ends is written sooner; smaller:
# fewer threads.
FINISHERS = 4
# Lanes released in one call of Redis at most. Larger: fewer calls, each of which blocks Redis for
# longer; smaller: more calls.
LANES_PER_RELEASE = 500


class Held:
    """A lane (conversation) in hand: this process holds its lock and works on it.

    Owned by the stage, thread or loop that works on the lane; the committer hands it back.
    """

    __slots__ = ("abandoned", "announced", "begun", "channel", "generation", "head", "id", "probe", "since", "turns")

    def __init__(self, lane: int, probe: bool, generation: int) -> None:
        self.id, self.probe = lane, probe
        self.head: Head | None = None
        self.channel: ChannelConfig | None = None
        self.begun = 0.0  # monotonic time at which the lane's turn began; 0: none runs
        self.abandoned: Head | None = None  # the head whose turn this process gave up: its result is void
        self.hold(generation)

    def hold(self, generation: int) -> None:
        """Begin a hold: its turns and seconds count from here, and the lane must be announced."""
        self.generation = generation  # Handler._generation when it was taken; once that is higher, no turn begins
        self.announced = False  # True: our Worker row lists the lane, so that a crash makes it a suspect
        self.since = time.monotonic()  # HOLD_SECONDS count from then
        self.turns = 0


# ---------------------------------------------------------------- the handler of a process


class Handler:
    """Holds lanes, runs their turns, commits the results. One per process, entered by ``handle``.

    ``announce`` writes the lanes in hand into the Worker row and runs a statement in the same round
    trip. It returns that statement's rows, or None if it failed: then no turn may begin.
    """

    def __init__(
        self,
        writer: committer.Committer,
        locks: Locks,
        incarnation: uuid.UUID,
        announce: Callable[[database.Statement], Sequence[database.Row] | None],
    ) -> None:
        self.writer = writer
        self.locks = locks
        self.incarnation = incarnation
        self.overdue = threading.Event()  # a turn took too long: replace this process
        self._announce = announce
        self._generation = 0  # how often a sweeper took this process for dead
        self._stopping = False
        self._threads = TurnThreads(settings.TURN_THREADS, "turn")
        # The event loop's own pool would not do: bots may fill it.
        self._finishers = ThreadPoolExecutor(FINISHERS, thread_name_prefix="finish")
        self._isolated = ThreadPoolExecutor(isolated_turn.AT_ONCE, thread_name_prefix="isolated")
        self._running: dict[int, Held] = {}  # by lane: turns that run, watched for TURN_SECONDS
        self._on_loop: dict[int, Held] = {}  # by lane: turns on the event loop, also those that wait for a slot
        self._lock = threading.Lock()
        self._backpressure = Backpressure()
        self._reads = Stage("read", self._read_heads, LANES_PER_READ)
        self._releases = Stage("release", self._release_batch, LANES_PER_RELEASE)
        vital_thread("overdue", self._watch_overdue)

    def has_room(self, seconds: float = ROOM_SECONDS, *, woken: bool = True) -> bool:
        """Wait at most ``seconds`` until this process may take more lanes. Return False if it may not.

        ``woken``: lanes that are released early, to make room, can be woken again.
        """
        return self._backpressure.wait(self._closing, seconds, woken=woken)

    def keep_place(self) -> None:
        """Keep a thread of Celery, so that a process that is to be replaced takes no further tasks."""
        if self.overdue.is_set():
            time.sleep(settings.TURN_SECONDS)

    def handle(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Handle the next messages of these lanes. Returns once they are in hand, raises nothing.

        ``probe``: try one message although the bot is paused; ``locked=False``: without Redis.
        """
        if self._closing():
            return
        failpoint("T1")
        generation = self._generation
        try:
            mine = self.locks.hold(conversation_ids) if locked else self.locks.hold_unlocked(conversation_ids)
        except redis.RedisError as error:
            log.warning("lanes not held", error=type(error).__name__, lanes=len(conversation_ids))
            return
        if not mine:
            return
        next_stage = self._releases  # if a failpoint of the tests raises, the lanes are released
        try:
            failpoint("T2")
            next_stage = self._reads
        finally:
            self._backpressure.enter(mine)
            next_stage.put(Held(lane, probe, generation) for lane in mine)

    def begin_again(self, incarnation: uuid.UUID) -> None:
        """Go on under a new incarnation, after a sweeper marked this process dead.

        Turns that have not begun are dropped. Those that run are written if their lane has not
        changed.
        """
        with self._lock:
            self._generation += 1
            self.incarnation = incarnation
            self.locks.token = str(incarnation)

    def stop(self, seconds: float) -> None:
        """Take no new lane.

        Wait up to ``seconds`` for running turns to commit, then free the locks left.
        """
        self._stopping = True
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.locks.running():
            time.sleep(0.05)
        free(self.locks.kind, self.locks.token, self.locks.running())

    def _closing(self) -> bool:
        """Return True if no turn may begin, since this process stops or is to be replaced."""
        return self._stopping or self.overdue.is_set()

    # ------------------------------------------------------------ reading lanes

    def _release_batch(self, leaving: list[Held]) -> None:
        """Stage: release lanes.

        A lane on which another task left word (marked the lock: "look again") is kept and read
        again.
        """
        failpoint("T7")
        kept = set(self.locks.release([held.id for held in leaving], keep=not self._closing()))
        failpoint("T8")
        self._backpressure.leave(held.id for held in leaving if held.id not in kept)
        for held in leaving:
            held.hold(self._generation)
        self._reads.put(held for held in leaving if held.id in kept)

    def _read_heads(self, lanes: list[Held]) -> None:
        """Stage: read the heads and states of lanes, and begin with each.

        Lanes that our Worker row does not list are announced in the same trip: if this process dies
        in a turn, the sweeper must know which lanes to treat as suspects.
        """
        statement = (sql("fetch_heads"), {"ids": [held.id for held in lanes]})
        try:
            all_announced = all(held.announced for held in lanes)
            rows = runtime.read(*statement) if all_announced else self._announce(statement)
        except (psycopg.Error, CoreError) as error:
            log.warning("heads not read", error=type(error).__name__)
            time.sleep(0.2)
            rows = None
        if rows is None:
            self._release(lanes)
            return
        heads = {row[0]: Head(*row) for row in rows}
        failpoint("T3")
        for held in lanes:
            held.announced, held.head = True, heads.get(held.id)
            try:
                self._start_head(held)
            except Exception as error:  # the database failed, or only this lane, or its bot is unknown
                kind, place = error_places.kind(error), error_places.place(error)
                log.warning("lane released", conversation=held.id, error=kind, place=place)
                self._release([held])

    def _release(self, helds: Iterable[Held]) -> None:
        """Queue lanes for release, on the stage that asks Redis for many at once."""
        self._releases.put(helds)

    def _start_head(self, held: Held) -> None:
        """Do what the head of a lane asks for.

        Release the lane if there is nothing to do now; number messages that waited; settle a head
        without a turn; else begin its turn.
        """
        head = held.head
        if head is None or not self._may_begin(held) or head.mode != "bot" or head.stopped:
            self._release([held])
        elif head.message_id is None:
            self._number_waiting(held, head)
        elif head.status != "pending":
            self._commit(held, Finished(verdicts.pass_over(head), head))
        elif (head.wait or 0) > 0 and not held.probe:
            self._release([held])
        elif not head.starts_turn:
            self._commit(held, Finished(verdicts.advance(head), head))
        else:
            self._begin_turn(held, head)

    def _may_begin(self, held: Held) -> bool:
        """Return True if a turn of this lane may begin.

        False if this process closes, was taken for dead since it took the lane, or lost the lane's
        lock: another process may work on the lane.
        """
        return not self._closing() and held.generation == self._generation and held.id not in self.locks.lost

    def _number_waiting(self, held: Held, head: Head) -> None:
        """Number messages that waited for their order if their time has come; else come back then.

        A delay of more than two seconds is left to the sweeper.
        """
        if head.release_in is None:
            self._release([held])
        elif head.release_in > 0:
            delayed_wake.wake_later(held.id, head.tenant_id, head.release_in)
            self._release([held])
        else:
            self.writer.submit(RELEASE, [head.id], self._on_numbered, about=held)

    def _on_numbered(self, tickets: list[Ticket[int, str]]) -> None:
        """Called by the committer: read the lanes again, whose messages have numbers now.

        After an error the lane is released: the sweeper finds it.
        """
        for ticket in tickets:
            (self._reads if ticket.error is None else self._releases).put([ticket.about])

    def _begin_turn(self, held: Held, head: Head) -> None:
        """Begin the turn of a message: in a process, on the event loop or on a thread.

        The lane is released if its bot or channel is stopped, or if the bot must wait on this copy
        of production. Raises ``UnknownBot`` if this process does not know the bot: no failure of
        the message, since another process may.
        """
        channel = held.channel = registry.channel(head.channel_id)
        keys = pauses.keys_of(Work.HANDLE.activity, channel.bot, channel.id, channel.tenant_id) if channel else ()
        if channel is None or not channel.active or (pauses.is_stopped(*keys) and not held.probe):
            self._release([held])
            return
        function = registry.find_bot(channel.bot)
        if registry.why_bot_waits(channel.bot):
            self._release([held])
            return
        held.turns += 1
        try:
            task = verdicts.task_of(head, channel)
        except Exception as error:  # an unreadable payload
            self._finish(held, head, channel, turns.failed(error), 0.0)
            return
        if head.kind == Kind.BUTTON and not head.attempts:
            acknowledgements.acknowledge(channel, head.user, head.chat, head.is_group, task.message.data)
        if head.suspect:
            self._backpressure.mark_busy(held.id)
            self._isolated.submit(self._run_isolated, held, head, channel, task)
        elif inspect.iscoroutinefunction(function):
            with self._lock:
                self._on_loop[held.id] = held
            event_loop().start(self._run_async(held, head, channel, task, function))
        else:
            self._threads.submit(self._run, held, head, channel, task, function)

    # ------------------------------------------------------------ running turns

    def _run(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task, function: Any) -> None:
        """Run a plain function's turn, on a thread of the pool."""
        if self._mark_running(held):
            self._finish(held, head, channel, turns.run(function, task), held.begun)

    async def _run_async(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task, function: Any) -> None:
        """Run an async turn on the event loop.

        What follows may read the database, which would block the loop: a thread does it.
        """
        enter((held, head))
        async with event_loop().slots:
            if not self._mark_running(held):
                return
            began = held.begun
            output = await turns.run_async(function, task)
        await asyncio.get_running_loop().run_in_executor(
            self._finishers, self._finish, held, head, channel, output, began
        )

    def _run_isolated(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task) -> None:
        """Run a suspect's turn (its lane was in hand when a worker died) in its own process.

        Only a crash there is a failed attempt: the worker's death may have had another cause.
        """
        try:
            self._run_in_child(held, head, channel, task)
        finally:
            self._backpressure.mark_idle(held.id)

    def _run_in_child(self, held: Held, head: Head, channel: ChannelConfig, task: turns.Task) -> None:
        """Run the turn in a child process and commit its result.

        If no child process could run it, that is not the message's failure: the lane is released.
        """
        if not self._may_begin(held):
            self._release([held])
            return
        began = time.monotonic()
        try:
            output = isolated_turn.run(task)
        except Exception as error:  # no process could start: not this message's failure
            log.warning("isolated turn not begun", conversation=held.id, error=error_places.kind(error))
            output = None
        if output is None:
            self._release([held])
        else:
            self._finish(held, head, channel, output, began)

    def _mark_running(self, held: Held) -> bool:
        """Mark the turn as running, on its thread.

        Return False, and release the lane, if the turn must not begin: much may have changed while
        it waited for a thread.
        """
        with self._lock:
            if held.abandoned is held.head:
                return False  # its lane was released when it was given up
            if self._may_begin(held):
                held.begun = time.monotonic()
                self._running[held.id] = held
                self._backpressure.mark_busy(held.id)
                return True
            self._on_loop.pop(held.id, None)
        self._release([held])
        return False

    def _finish(self, held: Held, head: Head, channel: ChannelConfig, output: turns.Output, began: float) -> None:
        """Judge a turn that ended and commit its verdict. An abandoned turn's result is void."""
        with self._lock:
            if held.abandoned is head:
                return
            self._forget_turn(held)
        try:
            failpoint("T4")
            verdict = self._verdict(head, channel, output, time.monotonic() - began if began else 0.0)
        except Exception as error:  # the database is away: not this message's failure
            log.warning(
                "lane released", conversation=held.id, error=error_places.kind(error), place=error_places.place(error)
            )
            self._release([held])
        else:
            self._commit(held, Finished(verdict, head, channel))

    def _verdict(self, head: Head, channel: ChannelConfig, output: turns.Output, seconds: float) -> Verdict:
        """Return the verdict of an output.

        An adapter that cannot split a reply makes it a failed turn. Errors of the database are
        raised: they are not this message's failure.
        """
        try:
            return self._judge(head, channel, output, seconds)
        except (psycopg.Error, NotStored):
            raise
        except Exception as error:  # the adapter could not split this text: a failed turn
            return self._judge(head, channel, turns.failed(error), 0.0)

    def _judge(self, head: Head, channel: ChannelConfig, output: turns.Output, seconds: float) -> Verdict:
        """Return the verdict of an output; count it for the channel, which is paused if all fail."""
        if output.is_shortage:
            log.warning("no database connection for a bot", conversation=head.id, bot=channel.bot)
            return verdicts.void(head)
        record = {"worker": str(self.incarnation), "seconds": round(seconds, 6), "log": list(output.log) or None,
                  "state_before": head.state or None}  # fmt: skip
        if not output.error_type:
            verdict = verdicts.success(head, channel, output, {**record, "outcome": "committed"})
            pauses.count_turn(channel, head.id, "")
            return verdict
        paused = pauses.count_turn(
            channel, head.id, f"{output.error_type} at {output.error_place or 'an unknown place'}"
        )
        log.warning("turn failed", conversation=head.id, sequence=head.sequence, trace=verdicts.trace(head),
                    attempt=head.attempts + 1, bot=channel.bot, error=output.error_type, place=output.error_place,
                    paused=paused)  # fmt: skip
        record |= {"error_type": output.error_type, "error_place": output.error_place, "error_text": output.error_text,
                   "outcome": "paused" if paused else "failed"}  # fmt: skip
        return verdicts.failure(head, channel, record, paused)

    def _forget_turn(self, held: Held) -> None:
        """Note that a lane's turn runs no longer. Call with ``_lock`` held."""
        held.begun = 0.0
        self._on_loop.pop(held.id, None)
        if self._running.pop(held.id, None) is not None:
            self._backpressure.mark_idle(held.id)

    def _watch_overdue(self) -> None:
        """Fail turns that exceed ``TURN_SECONDS``.

        Then this process finishes its other turns and is replaced. While the event loop does not
        answer, the time of its turns stands still, but for the one that holds it.
        """
        tick = min(1.0, settings.TURN_SECONDS / 4)
        while True:
            time.sleep(tick)
            silence = event_loop().silence() if self._on_loop else 0.0
            holder = event_loop().holder() if silence else None
            late = self._take_overdue(holder, tick)
            is_lost = holder and (silence > settings.TURN_SECONDS or any(_holds(held, holder) for held in late))
            for held in late:
                self._abandon(held, holder)
            if holder and is_lost:
                self._leave_loop(holder)

    def _take_overdue(self, holder: Holder | None, tick: float) -> list[Held]:
        """Return the lanes whose turns exceed ``TURN_SECONDS``; what these turns return is void."""
        now = time.monotonic()
        with self._lock:
            for held in self._on_loop.values() if holder else ():
                if held.begun and not _holds(held, holder):
                    held.begun += tick
            late = [held for held in self._running.values() if now - held.begun > settings.TURN_SECONDS]
            for held in late:
                held.abandoned = held.head
                self._forget_turn(held)
        return late

    def _leave_loop(self, holder: Holder) -> None:
        """Give up the turns on a loop that does not answer: no attempt, and other processes run them.

        Nothing can end what blocks the loop's thread, so this process is to be replaced.
        """
        self.overdue.set()
        with self._lock:
            waiting = list(self._on_loop.values())
            for held in waiting:
                held.abandoned = held.head
                self._forget_turn(held)
        log.error("the event loop does not answer", place=holder.place, turns=len(waiting))
        self._release(waiting)
        for held in waiting:
            assert held.head is not None
            wake.handle([held.id], held.head.tenant_id)

    def _abandon(self, held: Held, holder: Holder | None) -> None:
        """Commit a failed attempt for a turn that took too long.

        Its thread cannot be stopped, so this process is to be replaced (``overdue``). Its next
        attempt runs in a process of its own, so that it costs no second replacement.
        """
        head, channel = held.head, held.channel
        assert head is not None
        assert channel is not None
        self.overdue.set()
        place = holder.place if holder and _holds(held, holder) else channel.bot
        error = turns.Output(error_type="TurnTooLong", error_place=place,
                             error_text=f"the turn took longer than {settings.TURN_SECONDS:g} s")  # fmt: skip
        verdict = self._judge(head, channel, error, settings.TURN_SECONDS)
        verdict.suspect = verdict.status == "pending"
        self._commit(held, Finished(verdict, head, channel))

    # ------------------------------------------------------------ committing

    def _commit(self, held: Held, finished: Finished) -> None:
        """Hand a verdict to the committer, which calls ``_on_commit`` with the lane (``about``)."""
        self.writer.submit(TURNS, [finished], self._on_commit, about=held)

    def _on_commit(self, tickets: list[Ticket[Finished, Committed]]) -> None:
        """Called by the committer after COMMIT: wake senders, and go on with each lane.

        It must not read the database: all commits would wait for it.
        """
        failpoint("T6")
        to_wake: dict[int, list[int]] = {}  # by tenant: lanes whose first waiting reply was committed
        lines: dict[str, list[logs.Line]] = {}
        for ticket in tickets:
            held: Held = ticket.about
            if ticket.error is not None:
                log.error("turn not written", conversation=held.id, error=type(ticket.error).__name__)
                self._release([held])
                continue
            word, behind, wakes_sender = ticket.result
            head: Head = ticket.item.head
            line = {"conversation": held.id, "sequence": head.sequence, "trace": verdicts.trace(head)}
            lines.setdefault(word if word == "moved" else ticket.item.verdict.outcome, []).append(line)
            if wakes_sender:
                to_wake.setdefault(head.tenant_id, []).append(held.id)
            self._continue(held, head, behind, word == "moved")
        for tenant_id, lanes in to_wake.items():
            wake.send(lanes, tenant_id)
        for word, its in lines.items():
            logs.together(log, "turn written", its, status=word)

    def _continue(self, held: Held, head: Head, behind: bool, moved: bool) -> None:
        """Go on with the lane's next message, or release the lane.

        ``behind``: more messages wait, so that a released lane is woken again. ``moved``: somebody
        else changed the lane since it was read, and may be working on it.
        """
        held.probe = held.probe and not held.turns  # heads that start no turn (an edit) do not use up the probe
        longest_hold = SHORT_HOLD_SECONDS if self._backpressure.waiting else HOLD_SECONDS
        hold_is_over = held.turns >= TURNS_PER_HOLD or time.monotonic() - held.since > longest_hold
        if behind and not hold_is_over:
            self._reads.put([held])
            return
        self._release([held])
        if behind or moved:
            wake.handle([held.id], head.tenant_id)


def _holds(held: Held, holder: Holder | None) -> bool:
    """Return True if the lane's turn, not an earlier one, holds up the event loop."""
    return holder is not None and holder.turn == (held, held.head)
