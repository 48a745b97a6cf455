"""Deliver: per lane, in order, within the platforms' limits: COMMIT intent -> send -> COMMIT result.

    look      hold the lanes, fetch their next replies in one query (a stage: one thread, one trip for many)
    admit     the limiter says which may start now (another)
    intend    COMMIT: this process is about to send this reply (with the result of the one before)
    call      adapter.send on a thread; it ends in one of five outcomes
    settle    COMMIT the result, with the next intent

**Invariant:** one reply of a lane is in flight; k+1 starts only after k is settled.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import queue
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import redis
import structlog

from conversations import installation, registry
from conversations.concurrency import Stage, vital_thread
from conversations.contracts import (
    ChannelConfig,
    Deferred,
    Failed,
    Outcome,
    Rejected,
    Scope,
    Unknown,
    Work,
)
from conversations.delivering import early_retry, results
from conversations.delivering.bulkhead import CALLS, Bulkhead
from conversations.delivering.lane import Event, Lane
from conversations.delivering.limiter import Limiter, Request, limits_of
from conversations.delivering.results import NOTHING_WRITTEN, Next, Step, Written
from conversations.delivering.send_stream import SENDS
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.lanes import pauses
from conversations.lanes.lock import Locks, free
from conversations.postgres import committer, database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Ticket
from conversations.telemetry import error_places, logs

log = structlog.get_logger(__name__)

READ_AHEAD = 256  # lanes of a channel that wait for room with what they have to say; the others are read anew then
START_SECONDS = 2.0  # a call that starts later than this after its intent is given back
STOP_SECONDS = 3.0  # for writing what became of calls that our own shutdown leaves behind
STAY_SECONDS = 5.0  # waits under this stay with the sender, longer ones in the column
CHECK_SECONDS = 2.0


class Sender:
    """Delivers lanes. One thread decides, stages take trips, a pool calls. ``send`` is its door."""

    def __init__(self, writer: committer.Committer, locks: Locks, incarnation: uuid.UUID, limiter: Limiter) -> None:
        self.writer, self.locks, self.incarnation, self.limiter = writer, locks, incarnation, limiter
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._calls = ThreadPoolExecutor(CALLS, thread_name_prefix="call")
        self._bulkhead: Bulkhead[Lane] = Bulkhead()  # calls, from the limiter's word to the call's end
        self._flying: set[Lane] = set()  # lanes whose call runs
        self._in_hand: set[int] = set()  # replies whose intent or call this process knows of
        self._unwritten: set[int] = set()  # replies that were called for and whose result could not be written
        self._scheduled: list[tuple[float, int, Lane]] = []
        self._log_lines: dict[str, list[logs.Line]] = {}  # results, by status, to be logged together
        self._tie = itertools.count()
        self._stopping = False
        self._checked_at = time.monotonic()
        self._reads = Stage("look", self._read_replies, 64)
        self._admissions = Stage("admit", self._ask_limiter, 64)
        self._releases = Stage("let go", self._release_batch, 500)
        vital_thread("deliver", self._serve)

    def send(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Deliver the next replies of these lanes; returns at once. ``probe``: although their channel is paused."""
        if self._stopping:
            return
        try:
            mine = self.locks.hold(conversation_ids) if locked else self.locks.hold_unlocked(conversation_ids)
        except redis.RedisError as error:
            log.warning("lanes not held", error=type(error).__name__, lanes=len(conversation_ids))
            return
        if mine:
            self._events.put(("look", [Lane(lane, probe) for lane in mine], None))

    def stop(self, seconds: float) -> None:
        """Start nothing new; let calls end and write their results for up to ``seconds``."""
        self._stopping = True
        end = time.monotonic() + seconds
        self._drain(end - STOP_SECONDS)
        unknown = Unknown(reason="its sender was stopped while it was being sent")
        for lane in list(self._flying):
            self._events.put(("result", [lane], (unknown, False)))
        self._drain(end)
        free(self.locks.kind, self.locks.token, self.locks.running())

    def _drain(self, end: float) -> None:
        while time.monotonic() < end and (self._bulkhead or self._in_hand):
            time.sleep(0.05)

    # ------------------------------------------------------------ one thread decides

    def _serve(self) -> None:
        while True:
            self._run_once()

    def _run_once(self) -> None:  # noqa: C901  (one case per kind of event)
        """What takes a trip for every lane is a stage's, and its answer an event. (What was forgotten is read here:
        channels, pauses, and every ``CHECK_SECONDS`` what is being sent in our name.)"""
        looking: list[Lane] = []
        ready: list[Lane] = []
        for word, lanes, value in self._ready():
            match word:
                case "look":
                    looking += lanes
                case "found":
                    self._take_rows(lanes, value)
                    ready += lanes
                case "not read":
                    for lane in lanes:
                        self._free_slot(lane)
                    self._release(lanes)
                case "advance":
                    ready += lanes
                case "admitted":
                    self._apply_waits(lanes, value)
                case "result":
                    ready += (lane for lane in lanes if self._settle(lane, value))
                case "written":
                    self._apply_results(value, looking)
        for status, lines in self._log_lines.items():
            logs.together(log, "reply", lines, status=status)
        self._log_lines.clear()
        called = self._give_out_slots(ready)
        self._reads.put([*looking, *(lane for lane in called if not lane.replies)])
        ready += (lane for lane in called if lane.replies)
        self._admissions.put([lane for lane in ready if self._route(lane)])
        self._check()

    def _ready(self) -> Sequence[Event]:
        """What happened since; waits for the next event, the next timer, or the next check."""
        now = time.monotonic()
        until = min(self._scheduled[0][0] if self._scheduled else now + CHECK_SECONDS, self._checked_at + CHECK_SECONDS)
        if self._bulkhead.has_startable():
            until = now
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=max(0.0, until - now)))
            while len(events) < 1000:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        while self._scheduled and self._scheduled[0][0] <= now:
            lane = heapq.heappop(self._scheduled)[2]
            events.append(("advance" if lane.replies else "look", [lane], None))
        return events

    def _read_replies(self, lanes: list[Lane]) -> None:
        """Stage: read their next replies."""
        try:
            rows = database.read(sql("fetch_replies"), {"ids": [lane.id for lane in lanes]})
        except (psycopg.Error, CoreError) as error:
            log.warning("replies not read", error=type(error).__name__)
            self._events.put(("not read", lanes, None))
        else:
            self._events.put(("found", lanes, rows))

    def _take_rows(self, lanes: Sequence[Lane], rows: Sequence[tuple[Any, ...]]) -> None:
        found: dict[int, list[Next]] = collections.defaultdict(list)
        for row in rows:
            found[row[0]].append(Next(*row))
        now = time.monotonic()
        for lane in lanes:
            lane.replies, lane.read_at = collections.deque(found[lane.id]), now
            lane.channel = _channel(found[lane.id][0].channel_id) if found[lane.id] else None

    def _release(self, lanes: Sequence[Lane]) -> None:
        self._releases.put(lanes)

    def _release_batch(self, lanes: list[Lane]) -> None:
        """Stage: release; a lane on which word was left is looked at again."""
        again = set(self.locks.release([lane.id for lane in lanes], keep=not self._stopping))
        if again:
            self._reads.put(lane for lane in lanes if lane.id in again)

    def _ask_limiter(self, lanes: list[Lane]) -> None:
        """Stage: one question to the limiter for all that may start as far as we know."""
        self._events.put(("admitted", lanes, self.limiter.admit([_request(lane) for lane in lanes])))

    def _apply_waits(self, lanes: Sequence[Lane], waits: Sequence[float]) -> None:
        for lane, wait in zip(lanes, waits, strict=True):
            if wait <= 0 and not self._stopping:
                self._intend(lane)
            else:
                self._free_slot(lane)
                self._wait_for_limiter(lane, wait)

    def _route(self, lane: Lane) -> bool:
        """Whether the lane's next reply may go to the limiter, with a call reserved; everything else is done here."""
        reply = self._next_reply(lane)
        if reply is None or lane.channel is None or not results.may_wait_for_intent(lane.result):
            self._write_and_release(lane)
        elif self._is_lost(reply):
            self._requeue(lane, reply, lane.channel)
        elif results.refusal(reply):
            self._refuse(lane, reply)
        elif reply.status != "pending" or self._stopping or self._is_held(lane, reply):
            self._write_and_release(lane)
        elif (reply.wait or 0) > 0 and not lane.probe:
            self._wait_for_retry(lane, reply.wait or 0)
        elif not lane.slot and self._bulkhead.free_slots(lane.channel.id) <= 0:
            self._wait_for_slot(lane)
        else:
            self._take_slot(lane, lane.channel.id)
            return True
        self._free_slot(lane)
        return False

    def _next_reply(self, lane: Lane) -> Next | None:
        while lane.replies:
            reply = lane.replies[0]
            if reply.reply_id is not None and reply.status not in results.SETTLED:
                return reply
            lane.replies.popleft()
            if reply.reply_id is None:
                return None
            if not lane.replies:
                self._skip_settled(lane, reply)
        return None

    def _skip_settled(self, lane: Lane, last: Next) -> None:
        """All that was fetched is settled: move the lane's head past it."""
        try:
            database.execute(sql("skip_settled"), {"id": lane.id, "sequence": last.sequence + 1})
        except (psycopg.Error, CoreError) as error:
            log.warning("head of replies not moved", error=type(error).__name__)

    def _is_lost(self, reply: Next) -> bool:
        """A row in our name that we do not have in hand: the answer to a COMMIT was lost."""
        mine = reply.status == "sending" and reply.claimed_by == self.incarnation
        return mine and reply.reply_id not in self._in_hand

    def _refuse(self, lane: Lane, reply: Next) -> None:
        """It is never started; what came before it is written first."""
        refusal = results.refusal(reply)
        if lane.result is not None or refusal is None:
            self._write_and_release(lane)
            return
        lane.replies.popleft()
        self._submit(lane, results.result(reply, None, refusal[0], error=refusal[1]))

    def _is_held(self, lane: Lane, reply: Next) -> bool:
        """Sending is held for this lane: its channel is paused or switched off, or this is a copy of production."""
        channel = lane.channel
        assert channel is not None
        if not channel.active:
            return True
        if not lane.probe and self._paused(channel):
            return True
        return not installation.may_send_to(reply.user, reply.chat)

    def _paused(self, channel: ChannelConfig) -> bool:
        try:
            return pauses.is_stopped(*pauses.keys_of(Work.SEND.activity, channel.bot, channel.id, channel.tenant_id))
        except CoreError:  # the database is away: no intent is written now, whatever we say
            return True

    def _write_and_release(self, lane: Lane) -> None:
        """Let the lane go; a result is written before, and its answer looks again."""
        if lane.result is not None:
            self._flush(lane)
        else:
            self._release([lane])

    def _wait_for_limiter(self, lane: Lane, seconds: float) -> None:
        """The limiter's waits: short ones stay here, long ones go into the column, and the lane with them."""
        if lane.result is not None:
            self._flush(lane, then=seconds if seconds <= STAY_SECONDS else 0.0)
        elif seconds <= STAY_SECONDS:
            self._schedule(lane, seconds)
        else:
            self._submit(lane, results.result(lane.replies.popleft(), None, "pending", delay=seconds))

    def _wait_for_retry(self, lane: Lane, seconds: float) -> None:
        """A retry time that stands in the column already."""
        if lane.result is not None or seconds > STAY_SECONDS:
            self._write_and_release(lane)
        else:
            lane.replies.clear()  # read anew then: what was read says "wait" for ever
            self._schedule(lane, seconds)

    def _schedule(self, lane: Lane, seconds: float) -> None:
        heapq.heappush(self._scheduled, (time.monotonic() + seconds, next(self._tie), lane))

    # ------------------------------------------------------------ the bulkhead

    def _wait_for_slot(self, lane: Lane) -> None:
        """The channel has its share of calls in flight: wait here for one to end, the result written meanwhile."""
        assert lane.channel is not None
        before = -1 if lane.result is not None else self._bulkhead.enqueue(lane.channel.id, lane)
        if before < 0:
            self._write_and_release(lane)
        elif before >= READ_AHEAD:
            lane.replies.clear()

    def _give_out_slots(self, ready: Sequence[Lane]) -> list[Lane]:
        """Lanes for which there is room now, longest wait first, behind those that go on with what was read for them:
        a lane that has its turn says all of that, so that nothing is read and written twice. Each has its place, also
        while it is read anew."""
        going_on = collections.Counter(
            lane.channel.id for lane in ready if lane.channel and lane.replies and not lane.slot
        )
        called = self._bulkhead.start_waiting(going_on)
        for lane in called:
            assert lane.channel is not None
            lane.slot = lane.channel.id
        return called

    def _take_slot(self, lane: Lane, channel_id: int) -> None:
        if not lane.slot:
            lane.slot = channel_id
            self._bulkhead.take_slot(channel_id)

    def _free_slot(self, lane: Lane) -> None:
        if lane.slot:
            self._bulkhead.free_slot(lane.slot)
            lane.slot = 0

    # ------------------------------------------------------------ intents and results

    def _intend(self, lane: Lane) -> None:
        reply = lane.in_flight = lane.replies.popleft()
        assert reply.reply_id is not None
        step = lane.result or Step(id=lane.id, channel_id=reply.channel_id)
        lane.result, lane.probe = None, False
        lane.claim = self.incarnation  # read once: another thread begins another life
        step.intent_claim = str(lane.claim)
        step.intent_id, step.intent_sequence, step.intent_attempts = reply.reply_id, reply.sequence, reply.attempts
        lane.trace = bytes(reply.identity or b"").hex()[:16]
        self._in_hand.add(reply.reply_id)
        failpoint("D1")
        self._submit(lane, step)

    def _flush(self, lane: Lane, then: float = 0.0) -> None:
        """Write a result alone; its answer looks at the lane again, after ``then`` seconds."""
        step, lane.result = lane.result, None
        if step is not None:
            self._submit(lane, step, then)

    def _submit(self, lane: Lane, step: Step, then: float = 0.0) -> None:
        """One step of a lane is outstanding at a time: nothing else is done with it until its answer."""
        self.writer.submit(SENDS, step, self._on_commit, about=(lane, step, then))

    def _on_commit(self, tickets: list[Ticket[Step, Written]]) -> None:
        """In the committer's thread: what is meant begins at once, behind the word that it was written."""
        meant = [(lane, lane.channel, lane.in_flight, _outcome(ticket).begun_at)
                 for ticket in tickets for lane, step, _ in [ticket.about]
                 if step.intent_id is not None and _outcome(ticket).intent]  # fmt: skip
        self._events.put(("written", [ticket.about[0] for ticket in tickets], tickets))
        for call in meant:
            failpoint("D2")
            self._calls.submit(self._call, *call)

    def _apply_results(self, tickets: Sequence[Ticket[Step, Written]], looking: list[Lane]) -> None:
        for ticket in tickets:
            lane, step, then = ticket.about
            written = _outcome(ticket)
            if step.reply_id is not None:
                self._apply_result(lane, step, ticket, written)
            if step.intent_id is None:
                if then:
                    self._schedule(lane, then)
                elif written.is_done():
                    self._release([lane])
                else:
                    looking.append(lane)
            elif written.intent:
                self._flying.add(lane)
            else:
                self._in_hand.discard(step.intent_id)
                lane.in_flight = None
                self._free_slot(lane)
                looking.append(lane)

    def _apply_result(self, lane: Lane, step: Step, ticket: Ticket[Step, Written], written: Written) -> None:
        assert step.reply_id is not None
        self._in_hand.discard(step.reply_id)
        if ticket.error is not None and step.expect == "sending":
            log.error("result refused by the database", conversation=lane.id, error=type(ticket.error).__name__)
            self._unwritten.add(step.reply_id)
        else:
            self._unwritten.discard(step.reply_id)
        self._log_result(lane, step, written.status if written.result else "moved")

    def _requeue(self, lane: Lane, reply: Next, channel: ChannelConfig) -> None:
        """A row in our name that we do not have in hand: its call never began, or its result could not be written."""
        if lane.result is not None:
            self._flush(lane)
            return
        lane.replies.popleft()
        if reply.reply_id in self._unwritten:
            unknown = Unknown(reason="its result could not be written")
            self._submit(lane, results.retry(reply, self.incarnation, channel, unknown, False))
        else:
            spent = max(0, reply.attempts - 1)
            self._submit(lane, results.result(reply, self.incarnation, "pending", attempts_after=spent, delay=0.0))

    def _settle(self, lane: Lane, value: tuple[Outcome, bool]) -> bool:
        """A call ended: what it means for the reply and the lane. False: we had given it up before."""
        reply, channel = lane.in_flight, lane.channel
        if reply is None or channel is None or lane not in self._flying:
            return False
        lane.in_flight = None
        failpoint("D3")
        self._flying.discard(lane)
        self._free_slot(lane)
        lane.result = results.judge(reply, lane.claim, channel, *value)
        return True

    def _log_result(self, lane: Lane, step: Step, status: str) -> None:
        words = {"conversation": lane.id, "sequence": step.sequence, "attempt": step.attempts, "trace": lane.trace}
        self._log_lines.setdefault(status, []).append(words)

    # ------------------------------------------------------------ calls

    def _call(self, lane: Lane, channel: ChannelConfig, reply: Next, begun_at: float) -> None:
        """On a thread of the pool. ``begun_at``: before its intent was committed."""
        wait = self._platform_wait(channel, reply)  # this may take a while
        if time.monotonic() - begun_at > START_SECONDS or self._stopping or lane.claim != self.incarnation:
            outcome: Outcome = Deferred(seconds=0.05, bucket="", reason="not begun in time")
        elif wait > 0:
            outcome = Deferred(seconds=wait, bucket="", reason="the platform said to wait after it was admitted")
        else:
            outcome = _send(channel, reply)
        self._events.put(("result", [lane], (outcome, self._count_outcome(channel, reply, outcome))))
        early_retry.record_outcome(channel.id, outcome)

    def _platform_wait(self, channel: ChannelConfig, reply: Next) -> float:
        """Somebody else's 429 may have come between the limiter's word and this call."""
        try:
            return self.limiter.blocked(_request_of(reply, channel))
        except Exception as error:  # it was admitted: no check of ours keeps a lane in hand
            log.warning("blocks not read", channel=channel.id, error=type(error).__name__)
            return 0.0

    def _count_outcome(self, channel: ChannelConfig, reply: Next, outcome: Outcome) -> bool:
        """What it means for the channel and its limits. True: the channel is paused, no attempt is spent."""
        key = pauses.Key(pauses.CHANNEL, str(channel.id), Work.SEND.activity)
        try:
            match outcome:
                case Deferred():
                    if outcome.bucket:
                        self.limiter.block(
                            _request_of(reply, channel), outcome.bucket, results.wait_seconds(outcome), outcome.reason
                        )
                case Failed() | Unknown():
                    return pauses.count_failure(key, reply.id, outcome.reason)
                case Rejected(scope=Scope.CHANNEL, new_chat=""):
                    return pauses.count_failure(key, reply.id, outcome.reason, at_once=True)
                case _:  # it answers, so it works
                    pauses.count_success(key)
        except Exception as error:  # whatever it is: the result must be written
            log.warning("not counted", channel=channel.id, error=type(error).__name__)
        return False

    def _check(self) -> None:
        """Every 2 s: rows in our name that we do not have in hand (a lost answer to COMMIT)."""
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        try:
            rows = database.read(sql("find_claimed"), {"claim": self.incarnation})
        except (psycopg.Error, CoreError):
            return
        lost = [lane for lane, reply in rows if reply not in self._in_hand]
        if lost:
            self.send(lost, locked=False)


def _outcome(ticket: Ticket[Step, Written]) -> Written:
    return ticket.result if ticket.error is None else NOTHING_WRITTEN


def _channel(channel_id: int) -> ChannelConfig | None:
    """The channel, where it can be used: a broken one holds up nobody else."""
    try:
        channel = registry.channel(channel_id)
        if channel is not None:
            registry.adapter(channel.platform)
        return channel
    except Exception as error:
        log.error("channel cannot be used", channel=channel_id, error=type(error).__name__)
        return None


def _send(channel: ChannelConfig, reply: Next) -> Outcome:
    """One attempt. Any exception of an adapter is an unknown outcome."""
    try:
        outgoing = results.outbound(reply)
    except msgspec.ValidationError as error:
        return Rejected(reason=f"its body is not one of a reply: {type(error).__name__}")
    try:
        return registry.adapter(channel.platform).send(channel, outgoing)
    except Exception as error:
        log.warning("send raised", channel=channel.id, error=error_places.kind(error), place=error_places.place(error))
        return Unknown(reason=error_places.kind(error))


def _request(lane: Lane) -> Request:
    assert lane.channel is not None
    return _request_of(lane.replies[0], lane.channel, time.monotonic() - lane.read_at)


def _request_of(reply: Next, channel: ChannelConfig, waited: float = 0.0) -> Request:
    limits = limits_of(channel.options.get("limits", ""), tuple(registry.adapter(channel.platform).limits))
    ago = None if reply.sent_ago is None else reply.sent_ago + waited
    return Request(channel=channel, chat=reply.chat, is_group=reply.is_group, limits=limits, seconds_ago=ago)
