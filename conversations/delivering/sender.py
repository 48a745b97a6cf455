"""Delivers replies: per lane, in order, within rate limits: COMMIT intent -> send -> COMMIT result.

1. Hold the lanes, fetch their next replies in one query.
2. Ask the limiter which may start now.
3. COMMIT an intent, "this process is about to send this reply", with the result of the one before.
4. Call adapter.send on a thread. It ends in one of five outcomes.
5. COMMIT the result, with the next intent.

One thread decides. Whatever needs a round trip runs on a Stage (one thread, one trip for many
lanes), in the committer or in a pool, and comes back to that thread as an event.

**Invariant:** one reply of a lane is in flight; k+1 starts only after k is settled.

More than 350 lines in one file: the steps share the lane's state, and change it in one thread.
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

from conversations import installation, registry, runtime
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
from conversations.postgres import committer
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Ticket
from conversations.telemetry import error_places, logs

log = structlog.get_logger(__name__)

# Lanes (conversations) of a channel that keep the replies they fetched while they wait for a slot;
# later ones fetch again. Larger: fewer queries, more memory.
READ_AHEAD = 256
# Seconds after its intent within which a call must begin; a later one is not made. Longer: a
# sweeper that took this process for dead may have given the reply to another sender, and the person
# gets it twice; shorter: a busy process puts off more calls.
START_SECONDS = 2.0
# Seconds kept at a shutdown for writing the results of calls that were cut. Longer: less time for
# calls to end; shorter: results may stay unwritten, and their replies are sent again.
STOP_SECONDS = 3.0
# Waits up to this many seconds stay in this process; for longer ones the lane is released, with the
# time in its row. Longer: fewer writes, and more lanes to find again if the process dies.
STAY_SECONDS = 5.0
# Seconds between two checks for rows in our name that we do not know of. Longer: fewer queries, and
# a reply whose COMMIT succeeded without an answer waits longer.
CHECK_SECONDS = 2.0
# Lanes per round trip at most: for reading replies or asking the limiter, and for releasing.
# Larger: fewer trips, and the first lane of a batch waits longer for the rest.
LANES_PER_TRIP, LANES_PER_RELEASE = 64, 500
# Events that one pass of the loop takes at most. Larger: larger batches; smaller: a flood of events
# delays the first of them less.
EVENTS_PER_PASS = 1_000
# Seconds after which a reply is tried again whose call did not begin in time. Longer: the reply
# waits longer; shorter: a busy process is asked again before it has caught up.
NOT_BEGUN_DELAY_SECONDS = 0.05


class Sender:
    """Delivers lanes. One per process, entered by ``send``."""

    def __init__(self, writer: committer.Committer, locks: Locks, incarnation: uuid.UUID, limiter: Limiter) -> None:
        self.writer, self.locks, self.incarnation, self.limiter = writer, locks, incarnation, limiter
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._calls = ThreadPoolExecutor(CALLS, thread_name_prefix="call")
        self._bulkhead: Bulkhead[Lane] = Bulkhead()  # slots: from asking the limiter to the call's end
        self._flying: set[Lane] = set()  # lanes whose call runs
        self._in_hand: set[int] = set()  # replies whose intent or call this process knows of
        self._unwritten: set[int] = set()  # replies that were sent and whose result could not be written
        self._scheduled: list[tuple[float, int, Lane]] = []  # heap: monotonic time, tie breaker, lane
        self._log_lines: dict[str, list[logs.Line]] = {}  # results by status, logged together at the end of a pass
        self._tie = itertools.count()
        self._stopping = False
        self._checked_at = time.monotonic()
        self._reads = Stage("read", self._read_replies, LANES_PER_TRIP)
        self._admissions = Stage("admit", self._ask_limiter, LANES_PER_TRIP)
        self._releases = Stage("release", self._release_batch, LANES_PER_RELEASE)
        vital_thread("deliver", self._serve)

    def has_room(self) -> bool:
        """Return True if this process may take more lanes."""
        return not self._stopping

    def send(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Deliver the next replies of these lanes. Returns at once, raises nothing.

        ``probe``: try one reply although the channel is paused; ``locked=False``: without Redis.
        """
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
        """Start no new call, wait up to ``seconds`` for calls and results, then free the locks.

        Calls that do not end in time have an unknown outcome.
        """
        self._stopping = True
        end = time.monotonic() + seconds
        self._drain(end - STOP_SECONDS)
        unknown = Unknown(reason="its sender was stopped while it was being sent")
        for lane in list(self._flying):
            self._events.put(("result", [lane], (unknown, False)))
        self._drain(end)
        free(self.locks.kind, self.locks.token, self.locks.running())

    def _drain(self, end: float) -> None:
        """Wait until ``end`` (monotonic) for calls to end and results to be written."""
        while time.monotonic() < end and (self._bulkhead or self._in_hand):
            time.sleep(0.05)

    # ------------------------------------------------------------ one thread decides

    def _serve(self) -> None:
        while True:
            self._run_once()

    def _run_once(self) -> None:  # noqa: C901  (one case per kind of event)
        """One pass of the event loop: apply what happened, then queue I/O.

        Anything that needs a round trip runs on a Stage and comes back as an event. The only reads
        made here are expired caches (channels, pauses) and the two-second check for rows in our
        name.
        """
        to_read: list[Lane] = []
        ready: list[Lane] = []
        for event, lanes, value in self._next_events():
            match event:
                case "look":
                    to_read += lanes
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
                    self._apply_results(value, to_read)
        for status, lines in self._log_lines.items():
            logs.together(log, "reply", lines, status=status)
        self._log_lines.clear()
        started = self._give_out_slots(ready)
        self._reads.put([*to_read, *(lane for lane in started if not lane.replies)])
        ready += (lane for lane in started if lane.replies)
        self._admissions.put([lane for lane in ready if self._route(lane)])
        self._find_lost()

    def _next_events(self) -> Sequence[Event]:
        """Return the events to apply. Waits for one, for a lane's timer, or for ``_find_lost``.

        A lane whose timer is due becomes the event "advance" if it has fetched replies, else
        "look": fetch them. Does not wait if a lane that waits for a slot can have one.
        """
        now = time.monotonic()
        until = min(self._scheduled[0][0] if self._scheduled else now + CHECK_SECONDS, self._checked_at + CHECK_SECONDS)
        if self._bulkhead.has_startable():
            until = now
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=max(0.0, until - now)))
            while len(events) < EVENTS_PER_PASS:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        while self._scheduled and self._scheduled[0][0] <= now:
            lane = heapq.heappop(self._scheduled)[2]
            events.append(("advance" if lane.replies else "look", [lane], None))
        return events

    def _read_replies(self, lanes: list[Lane]) -> None:
        """Stage: fetch the next replies of lanes."""
        try:
            rows = runtime.read(sql("fetch_replies"), {"ids": [lane.id for lane in lanes]})
        except (psycopg.Error, CoreError) as error:
            log.warning("replies not read", error=type(error).__name__)
            self._events.put(("not read", lanes, None))
        else:
            self._events.put(("found", lanes, rows))

    def _take_rows(self, lanes: Sequence[Lane], rows: Sequence[tuple[Any, ...]]) -> None:
        """Give each lane the replies that were fetched for it."""
        found: dict[int, list[Next]] = collections.defaultdict(list)
        for row in rows:
            found[row[0]].append(Next(*row))
        now = time.monotonic()
        for lane in lanes:
            lane.replies, lane.read_at = collections.deque(found[lane.id]), now
            lane.channel = _channel(found[lane.id][0].channel_id) if found[lane.id] else None

    def _release(self, lanes: Sequence[Lane]) -> None:
        """Queue lanes for release, on the stage that asks Redis for many at once."""
        self._releases.put(lanes)

    def _release_batch(self, lanes: list[Lane]) -> None:
        """Stage: release lanes.

        A lane on which another task left word (marked the lock: "look again") is kept and read
        again.
        """
        again = set(self.locks.release([lane.id for lane in lanes], keep=not self._stopping))
        if again:
            self._reads.put(lane for lane in lanes if lane.id in again)

    def _ask_limiter(self, lanes: list[Lane]) -> None:
        """Stage: ask the limiter for many lanes at once."""
        self._events.put(("admitted", lanes, self.limiter.admit([_request(lane) for lane in lanes])))

    def _apply_waits(self, lanes: Sequence[Lane], waits: Sequence[float]) -> None:
        """Write intents for the lanes that the limiter admitted; the others wait without a slot."""
        for lane, wait in zip(lanes, waits, strict=True):
            if wait <= 0 and not self._stopping:
                self._submit_intent(lane)
            else:
                self._free_slot(lane)
                self._wait_for_limiter(lane, wait)

    def _route(self, lane: Lane) -> bool:
        """Decide about a lane's next reply. Return True if it goes to the limiter, with a slot.

        Else do the following, free the slot, and return False:

        1. No reply, or a result that must be written first: write the result, or release the lane.
        2. A row in our name that we do not know of: requeue it.
        3. A reply that must not be sent: refuse it.
        4. Sending is stopped for this lane: write the result, or release the lane.
        5. A retry time in the future: wait here, or release the lane.
        6. No free slot: wait for one.
        """
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
        """Return the lane's first unsettled reply; None if no fetched one is unsettled."""
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
        """Move the head of the lane's replies past those fetched, which are all settled.

        Each query fetches a few replies from the head: without this it would fetch the same ones
        for ever.
        """
        try:
            runtime.execute(sql("skip_settled"), {"id": lane.id, "sequence": last.sequence + 1})
        except (psycopg.Error, CoreError) as error:
            log.warning("head of replies not moved", error=type(error).__name__)

    def _is_lost(self, reply: Next) -> bool:
        """Return True for a row in our name that is news: the answer to its COMMIT was lost."""
        mine = reply.status == "sending" and reply.claimed_by == self.incarnation
        return mine and reply.reply_id not in self._in_hand

    def _refuse(self, lane: Lane, reply: Next) -> None:
        """Settle a reply that must not be sent. A result before it is written first."""
        refusal = results.refusal(reply)
        if lane.result is not None or refusal is None:
            self._write_and_release(lane)
            return
        lane.replies.popleft()
        self._submit(lane, results.result(reply, None, refusal[0], error=refusal[1]))

    def _is_held(self, lane: Lane, reply: Next) -> bool:
        """Return True if the channel is paused or off, or if this is a copy of production.

        A copy must not write to the people of the original.
        """
        channel = lane.channel
        assert channel is not None
        if not channel.active:
            return True
        if not lane.probe and self._paused(channel):
            return True
        return not installation.may_send_to(channel, reply.user, reply.chat, reply.is_group)

    def _paused(self, channel: ChannelConfig) -> bool:
        """Return True if sending is paused for the channel, its bot or its tenant."""
        try:
            return pauses.is_stopped(*pauses.keys_of(Work.SEND.activity, channel.bot, channel.id, channel.tenant_id))
        except CoreError:  # the database is away: no intent can be written anyway
            return True

    def _write_and_release(self, lane: Lane) -> None:
        """Write the lane's result, after which it is read again; without a result, release it."""
        if lane.result is not None:
            self._flush(lane)
        else:
            self._release([lane])

    def _wait_for_limiter(self, lane: Lane, seconds: float) -> None:
        """Wait for the limiter: here, or for longer than ``STAY_SECONDS`` in the reply's row."""
        if lane.result is not None:
            self._flush(lane, wait=seconds if seconds <= STAY_SECONDS else 0.0)
        elif seconds <= STAY_SECONDS:
            self._schedule(lane, seconds)
        else:
            self._submit(lane, results.result(lane.replies.popleft(), None, "pending", delay=seconds))

    def _wait_for_retry(self, lane: Lane, seconds: float) -> None:
        """Wait for a retry time in the reply's row: here if it is near, else release the lane."""
        if lane.result is not None or seconds > STAY_SECONDS:
            self._write_and_release(lane)
        else:
            lane.replies.clear()  # fetched again then: these rows would say "wait" for ever
            self._schedule(lane, seconds)

    def _schedule(self, lane: Lane, seconds: float) -> None:
        """Keep the lane here and go on with it after ``seconds``."""
        heapq.heappush(self._scheduled, (time.monotonic() + seconds, next(self._tie), lane))

    # ------------------------------------------------------------ the bulkhead

    def _wait_for_slot(self, lane: Lane) -> None:
        """Let the lane wait for a slot of its channel; first write its result, if it has one."""
        assert lane.channel is not None
        before = -1 if lane.result is not None else self._bulkhead.enqueue(lane.channel.id, lane)
        if before < 0:
            self._write_and_release(lane)
        elif before >= READ_AHEAD:
            lane.replies.clear()

    def _give_out_slots(self, ready: Sequence[Lane]) -> list[Lane]:
        """Return waiting lanes that may call now, oldest first.

        Lanes already working through the replies they fetched keep their slots, so nothing is
        fetched twice. Every lane returned holds a slot, even if its replies must be fetched again.
        """
        reserved = collections.Counter(
            lane.channel.id for lane in ready if lane.channel and lane.replies and not lane.slot
        )
        started = self._bulkhead.start_waiting(reserved)
        for lane in started:
            assert lane.channel is not None
            lane.slot = lane.channel.id
        return started

    def _take_slot(self, lane: Lane, channel_id: int) -> None:
        """Take one of the channel's slots for calls, unless the lane has one."""
        if not lane.slot:
            lane.slot = channel_id
            self._bulkhead.take_slot(channel_id)

    def _free_slot(self, lane: Lane) -> None:
        """Give the lane's slot back to its channel, if it has one."""
        if lane.slot:
            self._bulkhead.free_slot(lane.slot)
            lane.slot = 0

    # ------------------------------------------------------------ intents and results

    def _submit_intent(self, lane: Lane) -> None:
        """Commit the intent to send the lane's next reply, with the result of the one before.

        Only then may the call begin: if this process dies in it, the row says that it may have been
        sent.
        """
        reply = lane.in_flight = lane.replies.popleft()
        assert reply.reply_id is not None
        step = lane.result or Step(id=lane.id, channel_id=reply.channel_id)
        lane.result, lane.probe = None, False
        lane.claim = self.incarnation  # read once: another thread may change it
        step.intent_claim = str(lane.claim)
        step.intent_id, step.intent_sequence, step.intent_number = reply.reply_id, reply.sequence, reply.intent_number
        lane.trace = bytes(reply.identity or b"").hex()[:16]
        self._in_hand.add(reply.reply_id)
        failpoint("D1")
        self._submit(lane, step)

    def _flush(self, lane: Lane, wait: float = 0.0) -> None:
        """Write the lane's result alone; then read the lane again, after ``wait`` seconds."""
        step, lane.result = lane.result, None
        if step is not None:
            self._submit(lane, step, wait)

    def _submit(self, lane: Lane, step: Step, wait: float = 0.0) -> None:
        """Hand a step to the committer. Nothing else is done with the lane until it is written."""
        self.writer.submit(SENDS, [step], self._on_commit, about=(lane, step, wait))

    def _on_commit(self, tickets: list[Ticket[Step, Written]]) -> None:
        """Called by the committer: queue the event, then start calls whose intents are written."""
        calls = [(lane, lane.channel, lane.in_flight, _outcome(ticket).begun_at)
                 for ticket in tickets for lane, step, _ in [ticket.about]
                 if step.intent_id is not None and _outcome(ticket).intent]  # fmt: skip
        self._events.put(("written", [ticket.about[0] for ticket in tickets], tickets))
        for call in calls:
            failpoint("D2")
            self._calls.submit(self._call, *call)

    def _apply_results(self, tickets: Sequence[Ticket[Step, Written]], to_read: list[Lane]) -> None:
        """Go on with each lane whose step was committed.

        A call runs: the lane waits for it. The intent was refused, or the step had none: read the
        lane again (appended to ``to_read``), or release it.
        """
        for ticket in tickets:
            lane, step, wait = ticket.about
            written = _outcome(ticket)
            if step.reply_id is not None:
                self._apply_result(lane, step, ticket, written)
            if step.intent_id is None:
                if wait:
                    self._schedule(lane, wait)
                elif written.is_done():
                    self._release([lane])
                else:
                    to_read.append(lane)
            elif written.intent:
                self._flying.add(lane)
            else:
                self._in_hand.discard(step.intent_id)
                lane.in_flight = None
                self._free_slot(lane)
                to_read.append(lane)

    def _apply_result(self, lane: Lane, step: Step, ticket: Ticket[Step, Written], written: Written) -> None:
        """Note and log whether the result of a reply was written.

        A result that the database refuses leaves its row in our name: ``_requeue`` must know that
        the call was made.
        """
        assert step.reply_id is not None
        self._in_hand.discard(step.reply_id)
        if ticket.error is not None and step.expect == "sending":
            log.error("result refused by the database", conversation=lane.id, error=type(ticket.error).__name__)
            self._unwritten.add(step.reply_id)
        else:
            self._unwritten.discard(step.reply_id)
        self._log_result(lane, step, written.status if written.result else "moved")

    def _requeue(self, lane: Lane, reply: Next, channel: ChannelConfig) -> None:
        """Put a reply of ours that we lost track of back into its lane.

        If its call was made and the result could not be written, the outcome is unknown. Else the
        call never began, and no attempt is spent.
        """
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
        """Judge the outcome of a call. Return False if we had stopped waiting for it.

        The result stays with the lane, to be written together with its next intent.
        """
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
        """Collect a log line; each pass of the loop logs one line per status for many replies."""
        words = {"conversation": lane.id, "sequence": step.sequence, "attempt": step.attempts, "trace": lane.trace}
        self._log_lines.setdefault(status, []).append(words)

    # ------------------------------------------------------------ calls

    def _call(self, lane: Lane, channel: ChannelConfig, reply: Next, begun_at: float) -> None:
        """Make one call, on a thread of the pool, and queue its outcome.

        No call is made that begins too late, while this process stops, or after it was taken for
        dead: another sender may have the reply by then. ``begun_at``: monotonic time before its
        intent was committed.
        """
        wait = self._platform_wait(channel, reply)  # may read the database
        if time.monotonic() - begun_at > START_SECONDS or self._stopping or lane.claim != self.incarnation:
            outcome: Outcome = Deferred(seconds=NOT_BEGUN_DELAY_SECONDS, bucket="", reason="not begun in time")
        elif wait > 0:
            outcome = Deferred(seconds=wait, bucket="", reason="the platform said to wait after it was admitted")
        else:
            outcome = _send(channel, reply)
        self._events.put(("result", [lane], (outcome, self._count_outcome(channel, reply, outcome))))
        early_retry.record_outcome(channel.id, outcome)

    def _platform_wait(self, channel: ChannelConfig, reply: Next) -> float:
        """Return the seconds to wait for a 429 that came after the limiter admitted this call."""
        try:
            return self.limiter.blocked(_request_of(reply, channel))
        except Exception as error:  # it was admitted: this check must not keep the lane
            log.warning("blocks not read", channel=channel.id, error=type(error).__name__)
            return 0.0

    def _count_outcome(self, channel: ChannelConfig, reply: Next, outcome: Outcome) -> bool:
        """Count an outcome for the channel.

        Return True if the channel is paused: then no attempt is spent.
        """
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
                case _:  # the platform answered: the channel works
                    pauses.count_success(key, reply.id)
        except Exception as error:  # whatever it is, the result must be written
            log.warning("not counted", channel=channel.id, error=type(error).__name__)
        return False

    def _find_lost(self) -> None:
        """Every ``CHECK_SECONDS``, take lanes that have rows in our name that we do not know of.

        Otherwise a reply whose COMMIT succeeded without an answer would stay "sending" until this
        process ends.
        """
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        try:
            rows = runtime.read(sql("find_claimed"), {"claim": self.incarnation})
        except (psycopg.Error, CoreError):
            return
        lost = [lane for lane, reply in rows if reply not in self._in_hand]
        if lost:
            self.send(lost, locked=False)


def _outcome(ticket: Ticket[Step, Written]) -> Written:
    """Return what was written of a ticket's step: nothing if it failed."""
    return ticket.result if ticket.error is None else NOTHING_WRITTEN


def _channel(channel_id: int) -> ChannelConfig | None:
    """Return the channel; None if it cannot be used, so that only its own lanes stop."""
    try:
        channel = registry.channel(channel_id)
        if channel is not None:
            registry.adapter(channel.platform)
        return channel
    except Exception as error:
        log.error("channel cannot be used", channel=channel_id, error=type(error).__name__)
        return None


def _send(channel: ChannelConfig, reply: Next) -> Outcome:
    """Make one attempt. Any exception of the adapter is an unknown outcome."""
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
    """Return what the limiter needs to know of a send.

    ``waited``: seconds since the reply's row was read, by which its age of the last send has grown.
    """
    limits = limits_of(channel.options.get("limits", ""), tuple(registry.adapter(channel.platform).limits))
    ago = None if reply.sent_ago is None else reply.sent_ago + waited
    return Request(channel=channel, chat=reply.chat, is_group=reply.is_group, limits=limits, seconds_ago=ago)
