"""Deliver: per lane, in order, within the platforms' limits: COMMIT intent -> send -> COMMIT result.

    look      hold the lanes, fetch their next replies in one query
    admit     the limiter says which may start now
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
import random
import threading
import time
import uuid
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import redis
import structlog

from conversations import committer, database, failures, installation, pauses, registry
from conversations.clean import clean_text
from conversations.contracts import (
    ChannelConfig,
    Deferred,
    Failed,
    Outcome,
    OutboundReply,
    Rejected,
    ReplyBody,
    Scope,
    Sent,
    Unknown,
)
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.limiter import Limiter, Request, limits_of
from conversations.lock import Locks
from conversations.sqlfiles import sql

log = structlog.get_logger(__name__)

ATTEMPTS = 10
CALLS_PER_CHANNEL = 32
CALLS = 256
START_SECONDS = 2.0  # a call that starts later than this after its intent is given back
STAY_SECONDS = 5.0  # waits under this stay with the sender, longer ones in the column
RETRY_SECONDS = 300.0
CHECK_SECONDS = 2.0

SETTLED = frozenset({"sent", "parked", "cancelled", "expired", "failed"})


# ---------------------------------------------------------------- what is read, what is written


class Next(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``fetch_replies.sql``; ``reply_id`` is None for a lane with nothing left."""

    id: int
    channel_id: int
    chat: str
    user: str
    is_group: bool
    address: Any
    unreachable: bool
    cancelled_through: int
    last_sequence: int
    sent_ago: float | None
    reply_id: int | None
    sequence: int
    author: str
    status: str
    attempts: int
    wait: float | None
    expired: bool
    key: uuid.UUID
    body: Any
    claimed_by: uuid.UUID | None
    age: float
    answers: str | None
    identity: Any


class Step(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A result, an intent, or both, of one lane. An item of ``commit_sends.sql``."""

    ord: int = -1
    id: int
    claim: str | None = None
    reply_id: int | None = None
    sequence: int | None = None
    expect: str | None = None
    attempts: int | None = None
    status: str | None = None
    attempts_after: int | None = None
    delay: float | None = None
    platform_id: str | None = None
    error: str | None = None
    unreachable: bool = False
    new_chat: str | None = None
    intent_id: int | None = None
    intent_sequence: int | None = None
    intent_attempts: int | None = None


class Lane:
    """One lane in this sender's hands."""

    __slots__ = ("channel", "claim", "id", "now", "probe", "replies", "step", "trace")

    def __init__(self, lane: int, probe: bool) -> None:
        self.id, self.probe = lane, probe
        self.claim: uuid.UUID | None = None  # the incarnation whose name the intent bears
        self.trace = ""  # of the message that is being answered
        self.channel: ChannelConfig | None = None
        self.replies: collections.deque[Next] = collections.deque()
        self.now: Next | None = None  # in flight
        self.step: Step | None = None  # a result that waits for the next intent to ride with it


# ---------------------------------------------------------------- the sender of a process


class Sender:
    """Delivers lanes. One thread decides, a pool calls. ``send`` is its door."""

    def __init__(self, writer: committer.Committer, locks: Locks, incarnation: uuid.UUID, limiter: Limiter) -> None:
        self.writer, self.locks, self.incarnation, self.limiter = writer, locks, incarnation, limiter
        self._events: queue.SimpleQueue[tuple[str, Lane, Any]] = queue.SimpleQueue()
        self._calls = ThreadPoolExecutor(CALLS, thread_name_prefix="call")
        self._in_flight: collections.Counter[int] = collections.Counter()
        self._crowded: dict[int, collections.deque[Lane]] = collections.defaultdict(collections.deque)
        self._in_hand: set[int] = set()  # replies whose intent or call this process knows of
        self._later: list[tuple[float, int, Lane]] = []
        self._tie = itertools.count()
        self._stopping = False
        self._checked_at = time.monotonic()
        threading.Thread(target=self._serve, name="deliver", daemon=True).start()

    def send(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Deliver the next replies of these conversations; returns at once. ``probe``: try one although its channel is paused."""
        if self._stopping:
            return
        try:
            mine = self.locks.hold(conversation_ids) if locked else self.locks.hold_unlocked(conversation_ids)
        except redis.RedisError as error:
            log.warning("lanes not held", error=type(error).__name__, lanes=len(conversation_ids))
            return
        for lane in mine:
            self._events.put(("look", Lane(lane, probe), None))

    def stop(self, seconds: float) -> None:
        """Start nothing new; let calls end and write their results for up to ``seconds``."""
        self._stopping = True
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self._in_flight.total() or self._in_hand):
            time.sleep(0.05)

    # ------------------------------------------------------------ one thread decides

    def _serve(self) -> None:
        try:
            while True:
                self._turn()
        except BaseException as error:
            log.critical("sender died", error=type(error).__name__, exc_info=True)
            committer.end_process()

    def _turn(self) -> None:
        looking: list[Lane] = []
        ready: list[Lane] = []
        leaving: list[Lane] = []
        for word, lane, value in self._ready():
            match word:
                case "look":
                    looking.append(lane)
                case "advance":
                    ready.append(lane)
                case "result":
                    self._settle(lane, value)
                    ready.append(lane)
                case "written":
                    self._written(lane, value, looking)
                case "leave":
                    leaving.append(lane)
        looking += self._leave(leaving)
        ready += self._look(looking)
        self._advance(ready)
        self._check()

    def _ready(self) -> Sequence[tuple[str, Lane, Any]]:
        """What happened since; waits for the next event, the next timer, or the next check."""
        now = time.monotonic()
        until = min(self._later[0][0] if self._later else now + CHECK_SECONDS, self._checked_at + CHECK_SECONDS)
        events: list[tuple[str, Lane, Any]] = []
        try:
            events.append(self._events.get(timeout=max(0.0, until - now)))
            while len(events) < 1000:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            lane = heapq.heappop(self._later)[2]
            events.append(("advance" if lane.replies else "look", lane, None))
        return events

    def _look(self, lanes: Sequence[Lane]) -> list[Lane]:
        if not lanes:
            return []
        try:
            rows = database.read(sql("fetch_replies"), {"ids": [lane.id for lane in lanes]})
        except (psycopg.Error, CoreError) as error:
            log.warning("replies not read", error=type(error).__name__)
            self._go(lanes)
            return []
        found: dict[int, list[Next]] = collections.defaultdict(list)
        for row in rows:
            found[row[0]].append(Next(*row))
        for lane in lanes:
            lane.replies = collections.deque(found[lane.id])
            lane.channel = registry.channel(found[lane.id][0].channel_id) if found[lane.id] else None
        return list(lanes)

    def _go(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            self._events.put(("leave", lane, None))

    def _leave(self, lanes: Sequence[Lane]) -> list[Lane]:
        again = set(self.locks.release([lane.id for lane in lanes])) if lanes else set()
        return [lane for lane in lanes if lane.id in again and not self._stopping]

    def _advance(self, lanes: Sequence[Lane]) -> None:
        """Start what may start: local rules first, then one question to the limiter for all."""
        candidates = [lane for lane in lanes if self._may_start(lane)]
        if not candidates:
            return
        waits = self.limiter.admit([_request(lane) for lane in candidates])
        for lane, wait in zip(candidates, waits, strict=True):
            if wait <= 0:
                self._intend(lane)
            else:
                self._wait(lane, wait)

    def _may_start(self, lane: Lane) -> bool:
        """Whether the lane's next reply may go to the limiter; everything else is done here."""
        reply = self._head(lane)
        if reply is None or lane.channel is None:
            self._nothing_left(lane)
            return False
        if reply.status == "sending" and reply.claimed_by == self.incarnation and reply.reply_id not in self._in_hand:
            self._give_back(lane, reply)
            return False
        verdict = _refusal(reply)
        if verdict:
            lane.replies.popleft()
            self._submit(lane, _result(reply, None, verdict[0], error=verdict[1]))
            return False
        if reply.status != "pending" or self._stopping or self._held_back(lane, reply):
            self._hand_in(lane)
            return False
        if (reply.wait or 0) > 0:
            self._wait(lane, reply.wait or 0)
            return False
        if self._in_flight[lane.channel.id] >= CALLS_PER_CHANNEL:
            self._crowd(lane, lane.channel.id)
            return False
        return True

    def _head(self, lane: Lane) -> Next | None:
        while lane.replies:
            reply = lane.replies[0]
            if reply.reply_id is not None and reply.status not in SETTLED:
                return reply
            lane.replies.popleft()
            if reply.reply_id is None:
                return None
            if not lane.replies:
                self._skip(lane, reply)
        return None

    def _skip(self, lane: Lane, last: Next) -> None:
        """All that was fetched is settled: move the lane's head past it."""
        try:
            database.execute(sql("skip_settled"), {"id": lane.id, "sequence": last.sequence + 1})
        except (psycopg.Error, CoreError) as error:
            log.warning("head of replies not moved", error=type(error).__name__)

    def _held_back(self, lane: Lane, reply: Next) -> bool:
        """Sending is held for this lane: its channel is paused or switched off, or this is a copy of production."""
        channel = lane.channel
        assert channel is not None
        if not channel.active:
            return True
        if pauses.stopped(*pauses.sending_keys(channel.id, channel.tenant_id)) and not lane.probe:
            return True
        lane.probe = False
        return not installation.may_send_to(reply.user, reply.chat)

    def _crowd(self, lane: Lane, channel_id: int) -> None:
        """The channel has its share of calls in flight: wait here for one to end, the result written meanwhile."""
        if lane.step is not None:
            self._flush(lane)
        else:
            self._crowded[channel_id].append(lane)

    def _nothing_left(self, lane: Lane) -> None:
        if lane.step is not None:
            self._flush(lane)  # its answer looks again
        else:
            self._go([lane])

    def _hand_in(self, lane: Lane) -> None:
        self._flush(lane) if lane.step is not None else self._go([lane])

    def _wait(self, lane: Lane, seconds: float) -> None:
        """Short waits stay here; long ones go into the column, and the lane with them."""
        reply = lane.replies[0]
        if seconds <= STAY_SECONDS:
            if lane.step is not None:
                self._flush(lane, then=seconds)
            else:
                heapq.heappush(self._later, (time.monotonic() + seconds, next(self._tie), lane))
        elif lane.step is not None:
            self._flush(lane)
        elif (reply.wait or 0) > 0:
            self._go([lane])  # the column says so already
        else:
            lane.replies.popleft()
            self._submit(lane, _result(reply, None, "pending", delay=seconds))

    # ------------------------------------------------------------ intents and results

    def _intend(self, lane: Lane) -> None:
        reply = lane.now = lane.replies.popleft()
        assert reply.reply_id is not None and lane.channel is not None
        step = lane.step or Step(id=lane.id)
        lane.step = None
        lane.claim, lane.trace = self.incarnation, bytes(reply.identity or b"").hex()[:16]
        step.claim = str(lane.claim)
        step.intent_id, step.intent_sequence, step.intent_attempts = reply.reply_id, reply.sequence, reply.attempts
        self._in_hand.add(reply.reply_id)
        self._in_flight[lane.channel.id] += 1
        failpoint("D1")
        self._submit(lane, step)

    def _flush(self, lane: Lane, then: float = 0.0) -> None:
        """Write a result alone; its answer looks at the lane again, after ``then`` seconds."""
        step, lane.step = lane.step, None
        if step is not None:
            self._submit(lane, step, then)

    def _submit(self, lane: Lane, step: Step, then: float = 0.0) -> None:
        self.writer.submit(SENDS, step, lambda ticket: self._events.put(("written", lane, (step, ticket, then))))

    def _written(self, lane: Lane, value: tuple[Step, committer.Ticket, float], looking: list[Lane]) -> None:
        step, ticket, then = value
        result_ok, intent_ok, status = ticket.result if ticket.error is None else (False, False, "")
        if step.reply_id is not None:
            self._in_hand.discard(step.reply_id)
            self._log_result(lane, step, status if result_ok else "moved")
        if step.intent_id is None:
            if then:
                heapq.heappush(self._later, (time.monotonic() + then, next(self._tie), lane))
            else:
                looking.append(lane)
        elif intent_ok and lane.channel is not None and lane.now is not None:
            failpoint("D2")
            self._calls.submit(self._call, lane, lane.channel, lane.now, time.monotonic())
        else:
            self._not_begun(lane, step.intent_id)
            looking.append(lane)

    def _not_begun(self, lane: Lane, reply_id: int) -> None:
        self._in_hand.discard(reply_id)
        lane.now = None
        if lane.channel is not None:
            self._make_room(lane.channel.id)

    def _make_room(self, channel_id: int) -> None:
        self._in_flight[channel_id] -= 1
        if self._crowded[channel_id]:
            self._events.put(("look", self._crowded[channel_id].popleft(), None))

    def _give_back(self, lane: Lane, reply: Next) -> None:
        """A row in our name that we do not have in hand: its intent was committed, its call never began."""
        lane.replies.popleft()
        self._submit(lane, _result(reply, self.incarnation, "pending", attempts_after=max(0, reply.attempts - 1), delay=0.0))

    def _settle(self, lane: Lane, outcome: Outcome) -> None:
        """A call ended: what it means for the reply, the lane, the channel."""
        reply, channel = lane.now, lane.channel
        assert reply is not None and channel is not None
        lane.now = None
        failpoint("D3")
        self._make_room(channel.id)
        lane.step = self._judge(reply, lane.claim, channel, outcome)

    def _judge(self, reply: Next, claim: uuid.UUID | None, channel: ChannelConfig, outcome: Outcome) -> Step:
        attempts = reply.attempts + 1  # what the intent made it
        key = pauses.Key(pauses.CHANNEL, str(channel.id), pauses.SENDING)
        now = msgspec.structs.replace(reply, attempts=attempts, status="sending")
        match outcome:
            case Sent():
                pauses.succeeded(key)
                return _result(now, claim, "sent", platform_id=clean_text(outcome.platform_id, 300))
            case Deferred():
                seconds = min(max(outcome.seconds, 0.05), 86_400.0)
                if outcome.bucket:
                    self.limiter.block(_request_of(reply, channel), outcome.bucket, seconds, outcome.reason)
                return _result(now, claim, "pending", attempts_after=reply.attempts, delay=seconds, error=outcome.reason)
            case Rejected(new_chat=new_chat) if new_chat:
                return _result(now, claim, "pending", delay=0.0, error=outcome.reason, new_chat=new_chat)
            case Rejected(scope=Scope.CHANNEL):
                pauses.failed(key, reply.id, outcome.reason, at_once=True)
                return _result(now, claim, "pending", attempts_after=reply.attempts, delay=1.0, error=outcome.reason)
            case Rejected():
                unreachable = outcome.scope is Scope.CONVERSATION
                return _result(now, claim, "parked", error=outcome.reason, unreachable=unreachable)
        paused = pauses.failed(key, reply.id, outcome.reason)
        return self._again(now, claim, channel, outcome, paused)

    def _again(self, reply: Next, claim: uuid.UUID | None, channel: ChannelConfig, outcome: Failed | Unknown, paused: bool) -> Step:
        """Not sent, or not known: tried again with the same key, or left to staff."""
        spent = reply.attempts - 1 if paused else reply.attempts
        delay = random.uniform(0.1, min(RETRY_SECONDS, 2.0**spent))  # noqa: S311  (jitter)
        if isinstance(outcome, Unknown) and reply.age > registry.adapter(channel.platform).key_life(channel):
            if channel.options.get("unknown_policy", "resend") == "ask":
                return _result(reply, claim, "unknown", error=outcome.reason)
        if spent >= ATTEMPTS:
            return _result(reply, claim, "parked", error=f"tried {spent} times; last: {outcome.reason}")
        return _result(reply, claim, "pending", attempts_after=spent, delay=delay, error=outcome.reason)

    def _log_result(self, lane: Lane, step: Step, status: str) -> None:
        log.info("reply", conversation=lane.id, sequence=step.sequence, status=status, attempt=step.attempts, trace=lane.trace)

    # ------------------------------------------------------------ calls

    def _call(self, lane: Lane, channel: ChannelConfig, reply: Next, intended: float) -> None:
        """On a thread of the pool. Any exception of an adapter is an unknown outcome."""
        if time.monotonic() - intended > START_SECONDS or self._stopping:
            outcome: Outcome = Deferred(seconds=0.05, bucket="", reason="not begun in time")
        else:
            try:
                outcome = registry.adapter(channel.platform).send(channel, _outbound(reply))
            except Exception as error:
                log.warning("send raised", channel=channel.id, error=failures.kind(error), place=failures.place(error))
                outcome = Unknown(reason=failures.kind(error))
        self._events.put(("result", lane, outcome))

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


def _refusal(reply: Next) -> tuple[str, str] | None:
    """A pending reply that is never started: the status that it gets, and why."""
    if reply.status != "pending":
        return None
    if reply.author == "bot" and reply.sequence <= reply.cancelled_through:
        return "cancelled", "a person took over before it started"
    if reply.expired:
        return "expired", "its time passed before it could be sent"
    if reply.unreachable and reply.author != "person":
        return "parked", "the person cannot be reached since they blocked the bot"
    return None


def _result(
    reply: Next, claim: uuid.UUID | None, status: str, *, attempts_after: int | None = None, delay: float | None = None,
    platform_id: str | None = None, error: str | None = None, unreachable: bool = False, new_chat: str | None = None,
) -> Step:  # fmt: skip
    return Step(
        id=reply.id, claim=str(claim) if claim else None, reply_id=reply.reply_id, sequence=reply.sequence, expect=reply.status,
        attempts=reply.attempts, status=status, attempts_after=attempts_after, delay=delay, platform_id=platform_id,
        error=clean_text(error, 300) if error is not None else None, unreachable=unreachable, new_chat=new_chat,
    )  # fmt: skip


def _request(lane: Lane) -> Request:
    assert lane.channel is not None
    return _request_of(lane.replies[0], lane.channel)


def _request_of(reply: Next, channel: ChannelConfig) -> Request:
    limits = limits_of(channel.options.get("limits", ""), tuple(registry.adapter(channel.platform).limits))
    return Request(channel=channel, chat=reply.chat, is_group=reply.is_group, limits=limits, seconds_ago=reply.sent_ago)


def _outbound(reply: Next) -> OutboundReply:
    return OutboundReply(
        key=str(reply.key),
        chat=reply.chat,
        user=reply.user,
        address=reply.address or {},
        body=msgspec.convert(reply.body, ReplyBody),
        attempt=reply.attempts + 1,
        conversation_id=reply.id,
        sequence=reply.sequence,
        in_answer_to=reply.answers or "",
    )


# ---------------------------------------------------------------- the stream


class SendStream:
    """One transaction for the results and intents of many lanes."""

    name = "sends"
    patient = True

    def lane(self, item: Step) -> Hashable:
        return item.id

    def mend(self, item: Step, error: psycopg.Error) -> Step | None:
        """A result that the database refuses is written without the platform's words."""
        if item.error is None and not item.platform_id:
            return None
        return msgspec.structs.replace(item, error=None, platform_id=None, new_chat=None)

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Step]) -> Sequence[Any]:
        for place, item in enumerate(items):
            item.ord = place
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": [item.id for item in items]}),
            "sends": (sql("commit_sends"), {"items": committer.as_json(items)}),
        }
        rows = sorted(database.transaction(connection, statements)["sends"])
        failpoint("D4")
        return [committer.AGAIN if busy else (result, intent, status) for _, result, intent, busy, status in rows]


SENDS = SendStream()
