"""Handles messages: next message -> bot -> one COMMIT of state, replies, mark and next number.

1. Hold the lanes; read their heads and states in one query.
2. Run each head's turn (``turn_runner``).
3. Commit finished turns together, each behind a compare-and-set (sql/commit_turns.sql).
4. Go on to the lane's next head, or release the lane.

**Invariant:** a result is written only where the lane is as it was read; else it is void.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psycopg
import structlog
from django.conf import settings

from conversations import registry, runtime, turns
from conversations.acts import acknowledgements
from conversations.concurrency import Stage
from conversations.contracts import ChannelConfig, Kind, Work
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.handling import verdicts
from conversations.handling.backpressure import ROOM_SECONDS, Backpressure
from conversations.handling.held import Held, Turn
from conversations.handling.turn_runner import TurnRunner
from conversations.handling.turn_stream import RELEASE, TURNS, Committed
from conversations.handling.verdicts import Finished, Head, Step, Verdict
from conversations.lanes import pauses
from conversations.lanes.lock import Locks
from conversations.postgres import committer, database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Ticket
from conversations.telemetry import error_places, logs
from conversations.waking import wake

log = structlog.get_logger(__name__)

# Turns of a lane (conversation) before it is released, so that other lanes get its place. Larger:
# fewer locks and wakes for a long backlog; smaller: other lanes wait less.
TURNS_PER_HOLD = 20
# Seconds after which a lane is released although more messages wait, for the same reason. Longer:
# fewer locks and wakes for a long backlog; shorter: other lanes wait less.
HOLD_SECONDS = 1.0
# The same in seconds while tasks wait for lanes to be released; the lane is woken again. Longer: those
# tasks wait longer; shorter: more wakes. Tried on 2 cores with a tenant's backlog beside another tenant:
# 0.1, 0.03 and 0.015 made the other's p99 242, 168 and 123 ms, and the backlog lost 19, 14 and 15 %.
SHORT_HOLD_SECONDS = 0.015
# Lanes read in one query at most. Larger: fewer queries, and the first lane of a batch waits longer
# for the rest; smaller: more queries.
LANES_PER_READ = 64
# Lanes released in one call of Redis at most. Larger: fewer calls, each of which blocks Redis for
# longer; smaller: more calls.
LANES_PER_RELEASE = 500


class Handler:
    """Holds lanes, runs their turns, commits the results. One per process, entered by ``handle``.

    ``announce`` writes the lanes in hand into the Worker row and runs a statement in the same round
    trip. It returns that statement's rows, or None if it failed: then no turn may begin.
    """

    def __init__(
        self,
        writer: committer.Committer,
        locks: Locks,
        announce: Callable[[database.Statement], Sequence[database.Row] | None],
    ) -> None:
        self.writer = writer
        self.locks = locks
        self._announce = announce
        self._stopping = False
        self._backpressure = Backpressure()
        self._runner = TurnRunner(self._backpressure, self._may_begin, self._finish)
        self.overdue = self._runner.overdue
        self._reads = Stage("read", self._read_heads, LANES_PER_READ)
        self._releases = Stage("release", self._release_batch, LANES_PER_RELEASE)

    def has_room(self, seconds: float = ROOM_SECONDS, *, woken: bool = True) -> bool:
        """Wait at most ``seconds`` until this process may take more lanes. Return False if it may not.

        ``woken``: lanes that are released early, to make room, can be woken again.
        """
        return self._backpressure.wait(self._closing, seconds, woken=woken)

    def keep_place(self) -> None:
        """Keep the thread of Celery, so that a process that is to be replaced takes no further tasks."""
        if self.overdue.is_set():
            time.sleep(settings.TURN_SECONDS)

    def handle(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Handle the next messages of these lanes. Returns once they are in hand, raises nothing.

        ``probe``: try one message although the bot is paused; ``locked=False``: without Redis.
        """
        if self._closing():
            return
        failpoint("T1")
        mine = self.locks.take(conversation_ids, locked=locked)
        if not mine:
            return
        next_stage = self._releases  # if a failpoint of the tests raises, the lanes are released
        try:
            failpoint("T2")
            next_stage = self._reads
        finally:
            self._backpressure.enter(mine)
            next_stage.run([Held(lane, probe) for lane in mine])

    def stop(self, seconds: float) -> None:
        """Take no new lane, wait up to ``seconds`` for turns to commit, then free the locks left."""
        self._stopping = True
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.locks.running():
            time.sleep(0.05)
        self.locks.stop()

    def _closing(self) -> bool:
        """Return True if no turn may begin, since this process stops or is to be replaced."""
        return self._stopping or self.overdue.is_set()

    def _may_begin(self, lane: int) -> bool:
        """Return True if a turn on this lane may begin.

        False if this process closes, or no longer has the lane's lock: another one may work on it.
        """
        return not self._closing() and lane not in self.locks.lost

    # ------------------------------------------------------------ reading lanes

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
            self._releases.put(lanes)
            return
        heads = {row[0]: Head(*row) for row in rows}
        failpoint("T3")
        for held in lanes:
            held.announced = True
            try:
                self._start_head(held, heads.get(held.id))
            except Exception as error:  # the database failed, or only this lane, or its bot is unknown
                self._release_after(error, held)

    def _start_head(self, held: Held, head: Head | None) -> None:
        """Do what the head of a lane asks for."""
        step = verdicts.next_step(head, held.probe) if self._may_begin(held.id) else Step.RELEASE
        if head is None or step is Step.RELEASE:
            self._releases.put([held])
        elif step is Step.WAIT:
            wake.handle_later(held.id, head.tenant_id, head.release_in or 0.0)
            self._releases.put([held])
        elif step is Step.NUMBER:
            self.writer.submit(RELEASE, [head.id], self._on_numbered, about=held)
        elif step is Step.TURN:
            self._begin_turn(held, head)
        else:
            settled = verdicts.advance(head) if step is Step.ADVANCE else verdicts.pass_over(head)
            self._commit(held, Finished(settled, head))

    def _on_numbered(self, tickets: list[Ticket[int, str]]) -> None:
        """Called by the committer: read the lanes again, whose messages have numbers now.

        After an error the lane is released: the sweeper finds it.
        """
        for ticket in tickets:
            (self._reads if ticket.error is None else self._releases).put([ticket.about])

    def _begin_turn(self, held: Held, head: Head) -> None:
        """Begin the turn of a message.

        The lane is released if its bot or channel is stopped, or if the bot must wait on this copy
        of production. Raises ``UnknownBot`` if this process does not know the bot: no failure of
        the message, since another process may.
        """
        channel = registry.channel(head.channel_id)
        keys = pauses.keys_of(Work.HANDLE.activity, channel.bot, channel.id, channel.tenant_id) if channel else ()
        stops = not held.probe and pauses.is_stopped(*keys)
        if channel is None or not channel.active or stops or registry.why_bot_waits(channel.bot):
            self._releases.put([held])
            return
        function = registry.find_bot(channel.bot)
        held.turns += 1
        turn = Turn(held, head, channel)
        try:
            task = verdicts.task_of(head, channel)
        except Exception as error:  # an unreadable payload
            self._finish(turn, turns.failed(error))
            return
        if head.kind == Kind.BUTTON and not head.attempts:
            acknowledgements.acknowledge(channel, head.user, head.chat, head.is_group, task.message.data)
        self._runner.begin(turn, task, function)

    # ------------------------------------------------------------ judging

    def _finish(self, turn: Turn, output: turns.Output | None) -> None:
        """Judge a turn that ended and commit its verdict. None: it did not run; release its lane."""
        if output is None:
            self._releases.put([turn.held])
            return
        try:
            failpoint("T4")
            seconds = time.monotonic() - turn.began if turn.began else 0.0
            verdict = self._judge(turn.head, turn.channel, output, seconds)
        except Exception as error:  # the database is away: not this message's failure
            self._release_after(error, turn.held)
        else:
            verdict.suspect = turn.overdue and verdict.status == "pending"
            self._commit(turn.held, Finished(verdict, turn.head, turn.channel))

    def _judge(self, head: Head, channel: ChannelConfig, output: turns.Output, seconds: float) -> Verdict:
        """Return the verdict of an output; count it for the channel, which is paused if all fail.

        Raises ``psycopg.Error`` or ``NotStored`` while the database is away.
        """
        if output.is_shortage:
            log.warning("no database connection for a bot", conversation=head.id, bot=channel.bot)
            return verdicts.void(head)
        record = {"worker": self.locks.token, "seconds": round(seconds, 6), "log": list(output.log) or None,
                  "state_before": head.state or None}  # fmt: skip
        if not output.error_type:
            try:
                verdict = verdicts.success(head, channel, output, {**record, "outcome": "committed"})
            except Exception as error:  # the adapter cannot split a reply: a failed turn
                return self._judge(head, channel, turns.failed(error), 0.0)
            pauses.count_turn(channel, head.id, "")
            return verdict
        cause = f"{output.error_type} at {output.error_place or 'an unknown place'}"
        paused = pauses.count_turn(channel, head.id, cause)
        log.warning("turn failed", conversation=head.id, sequence=head.sequence, trace=verdicts.trace(head),
                    attempt=head.attempts + 1, bot=channel.bot, error=output.error_type, place=output.error_place,
                    paused=paused)  # fmt: skip
        record |= {"error_type": output.error_type, "error_place": output.error_place, "error_text": output.error_text,
                   "outcome": "paused" if paused else "failed"}  # fmt: skip
        return verdicts.failure(head, channel, record, paused)

    # ------------------------------------------------------------ committing

    def _commit(self, held: Held, finished: Finished) -> None:
        """Hand a verdict to the committer, which calls ``_on_commit`` with the lane (``about``)."""
        self.writer.submit(TURNS, [finished], self._on_commit, about=held)

    def _on_commit(self, tickets: list[Ticket[Finished, Committed]]) -> None:
        """Called by the committer after COMMIT: wake senders, and go on with each lane.

        It must not read the database: all commits would wait for it.
        """
        failpoint("T6")
        lines: dict[str, list[logs.Line]] = {}
        for ticket in tickets:
            held: Held = ticket.about
            if ticket.error is not None:
                log.error("turn not written", conversation=held.id, error=type(ticket.error).__name__)
                self._releases.put([held])
                continue
            word, behind, wakes_sender = ticket.result
            head: Head = ticket.item.head
            line = {"conversation": held.id, "sequence": head.sequence, "trace": verdicts.trace(head)}
            lines.setdefault(word if word == "moved" else ticket.item.verdict.outcome, []).append(line)
            if wakes_sender:
                wake.send([held.id], head.tenant_id)
            self._continue(held, head, behind, word == "moved")
        for word, its in lines.items():
            logs.together(log, "turn written", its, status=word)

    def _continue(self, held: Held, head: Head, behind: bool, moved: bool) -> None:
        """Go on with the lane's next message, or release the lane.

        ``behind``: more messages wait, so that a released lane is woken again. ``moved``: somebody
        else changed the lane since it was read, and may be working on it.
        """
        held.probe = held.probe and not held.turns  # heads that start no turn (an edit) do not use up the probe
        longest_hold = SHORT_HOLD_SECONDS if self._backpressure.waiting and not held.probe else HOLD_SECONDS
        hold_is_over = held.turns >= TURNS_PER_HOLD or time.monotonic() - held.since > longest_hold
        if behind and not hold_is_over:
            self._reads.put([held])
            return
        if behind or moved:
            held.wakes = head.tenant_id
        self._releases.put([held])

    # ------------------------------------------------------------ releasing lanes

    def _release_after(self, error: Exception, held: Held) -> None:
        log.warning(
            "lane released", conversation=held.id, error=error_places.kind(error), place=error_places.place(error)
        )
        self._releases.put([held])

    def _release_batch(self, leaving: list[Held]) -> None:
        """Stage: release lanes, or read those again that ``Locks.release`` keeps.

        Then wake lanes with work for others: earlier, their locks were taken.
        """
        failpoint("T7")
        kept = set(self.locks.release([held.id for held in leaving], keep=not self._closing()))
        failpoint("T8")
        self._backpressure.leave(held.id for held in leaving if held.id not in kept)
        for held in leaving:
            if held.wakes is not None and held.id not in kept:
                wake.handle([held.id], held.wakes)
            held.hold()
        self._reads.put(held for held in leaving if held.id in kept)
