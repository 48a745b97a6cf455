"""Calls: ``adapter.send`` on threads, and what its outcome means for the channel."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from conversations import registry
from conversations.contracts import ChannelConfig, Deferred, Failed, Outcome, Rejected, Scope, Unknown, Work
from conversations.delivering import early_retry, results
from conversations.delivering.bulkhead import CALLS
from conversations.delivering.lane import Lane
from conversations.delivering.limiter import Limiter, Request
from conversations.delivering.results import Next
from conversations.lanes import pauses
from conversations.media.outgoing import send as send_with_file
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Seconds after its intent within which a call must begin; a later one is not made. Longer: a
# sweeper that took this process for dead may have given the reply to another sender, and the person
# gets it twice; shorter: a busy process puts off more calls.
START_SECONDS = 2.0
# Seconds after which a reply is tried again whose call did not begin in time. Longer: the reply
# waits longer; shorter: a busy process is asked again before it has caught up.
NOT_BEGUN_DELAY_SECONDS = 0.05

NOT_BEGUN = Deferred(seconds=NOT_BEGUN_DELAY_SECONDS, bucket="", reason="not begun in time")


class Call(NamedTuple):
    """One attempt whose intent is written. ``begun_at``: monotonic time before that COMMIT."""

    lane: Lane
    channel: ChannelConfig
    reply: Next
    request: Request
    begun_at: float


Ended = Callable[[Call, Outcome, bool], None]


class Calls:
    """Makes the calls of one process, each at once on a thread of its own (``CALLS`` at most).

    ``may_begin(lane)``: whether this process may still call, asked on any thread.
    """

    def __init__(self, limiter: Limiter, may_begin: Callable[[Lane], bool]) -> None:
        self._limiter, self._may_begin = limiter, may_begin
        self._queue: queue.SimpleQueue[tuple[Call, Ended]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._spare = 0  # threads without a call, less calls without a thread

    def begin(self, call: Call, ended: Ended) -> None:
        """Make the call on a thread. If there is none, and none can be started, it has not begun.

        ``ended(call, outcome, paused)`` is called on any thread; ``paused``: no attempt is spent.
        After an error it may be called twice: only the first time counts.
        """
        with self._lock:
            while self._spare <= 0 and self._threads < CALLS and self._add_thread():
                pass  # also threads that could not be started before
            has_thread = self._threads > 0
            self._spare -= has_thread
        if has_thread:
            self._queue.put((call, ended))
        else:
            ended(call, NOT_BEGUN, False)

    def _add_thread(self) -> bool:
        """Start a thread. Return False if the system allows no more: calls wait for a thread."""
        try:
            threading.Thread(target=self._serve, name=f"call-{self._threads + 1}", daemon=True).start()
        except RuntimeError:
            log.warning("no thread started", threads=self._threads)
            return False
        self._threads += 1
        self._spare += 1
        return True

    def _serve(self) -> None:
        while True:
            call, ended = self._queue.get()
            try:
                self._make(call, ended)
            except BaseException as error:  # its lane must go on; a call that has ended is not ended twice
                ended(call, Unknown(reason=error_places.kind(error)), False)
                log.error("call not followed up", error=error_places.kind(error), exc_info=True)
            with self._lock:
                self._spare += 1

    def _make(self, call: Call, ended: Ended) -> None:
        """Make one call.

        No call is made that begins too late, while this process stops, or after it was taken for
        dead: another sender may have the reply by then.
        """
        wait = self._platform_wait(call)  # may read the database
        if time.monotonic() - call.begun_at > START_SECONDS or not self._may_begin(call.lane):
            outcome: Outcome = NOT_BEGUN
        elif wait > 0:
            outcome = Deferred(seconds=wait, bucket="", reason="the platform said to wait after it was admitted")
        else:
            outcome = _checked(_send(call.channel, call.reply))
        ended(call, outcome, self._count_outcome(call, outcome))
        early_retry.record_outcome(call.channel.id, outcome)

    def _platform_wait(self, call: Call) -> float:
        """Return the seconds to wait for a 429 that came after the limiter admitted this call."""
        try:
            return self._limiter.blocked(call.request)
        except Exception as error:  # it was admitted: this check must not keep the lane
            log.warning("blocks not read", channel=call.channel.id, error=type(error).__name__)
            return 0.0

    def _count_outcome(self, call: Call, outcome: Outcome) -> bool:
        """Count an outcome for the channel. Return True if it is paused: then no attempt is spent."""
        key = pauses.Key(pauses.CHANNEL, str(call.channel.id), Work.SEND.activity)
        conversation = call.lane.id
        try:
            match outcome:
                case Deferred():
                    if outcome.bucket:
                        seconds = results.wait_seconds(outcome)
                        self._limiter.block(call.request, outcome.bucket, seconds, outcome.reason)
                case Failed() | Unknown():
                    return pauses.count_failure(key, conversation, outcome.reason)
                case Rejected(scope=Scope.CHANNEL, new_chat=""):
                    return pauses.count_failure(key, conversation, outcome.reason, at_once=True)
                case _:  # the platform answered: the channel works
                    pauses.count_success(key, conversation)
        except Exception as error:  # whatever it is, the result must be written
            log.warning("not counted", channel=call.channel.id, error=type(error).__name__)
        return False


def _send(channel: ChannelConfig, reply: Next) -> object:
    """Make one attempt, return what the adapter returns. Any exception is an unknown outcome."""
    try:
        outgoing = results.outbound(reply)
    except msgspec.ValidationError as error:
        return Rejected(reason=f"its body is not one of a reply: {type(error).__name__}")
    try:
        return send_with_file(registry.adapter(channel.platform), channel, outgoing)
    except BaseException as error:
        log.warning("send raised", channel=channel.id, error=error_places.kind(error), place=error_places.place(error))
        return Unknown(reason=error_places.kind(error))


def _checked(returned: object) -> Outcome:
    """Return what an adapter returned; unknown if it is no outcome with fields of their types."""
    with contextlib.suppress(Exception):  # whatever its fields hold
        if isinstance(returned, Outcome):
            return msgspec.convert(msgspec.to_builtins(returned), Outcome)
    log.error("the adapter returned no outcome", type=type(returned).__name__)
    return Unknown(reason=f"the adapter returned no valid outcome: {type(returned).__name__}")
