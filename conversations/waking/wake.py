"""Wakes: hints that conversations have work. Steps wake the next one through here.

A wake may be lost, repeated or late: rows in Postgres decide, and the sweeper finds what was left
behind. No caller waits for Redis: one thread per process rings (see ``doorbell``), and drops hints
while Redis is away.
"""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Sequence

import structlog

from conversations import runtime
from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.waking import doorbell, publisher
from conversations.waking.queues import FETCH

log = structlog.get_logger(__name__)

# Seconds after a failure in which nobody rings and hints are dropped. Longer: less load on a sick
# Redis, and more conversations wait for the sweeper; shorter: the reverse.
BREAKER_SECONDS = 1.0
# Hints kept for the ringing thread; further ones are dropped. Larger: a longer stall of Redis costs
# no hint, but memory; smaller: more conversations wait for the sweeper.
HINTS = 10_000
# Longest delay of a hint, in seconds, that is kept here; the sweeper looks every 2 s and finds what
# waits longer. Longer: more delays in memory, little gain; shorter: the sweeper's rounds delay more
# messages.
LONGEST_SECONDS = 2.0
# Seconds added to a delay, so that the window has surely ended. Longer: messages wait longer;
# shorter: a hint may come too early, and another must follow.
MARGIN_SECONDS = 0.005

Hint = tuple[str, int, Sequence[int]]  # kind of work, tenant, conversations; of files: channels


def handle(conversation_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these conversations have messages to handle."""
    _waker().put(Work.HANDLE, conversation_ids, tenant_id)


def handle_later(conversation_id: int, tenant_id: int, seconds: float) -> None:
    """Hint in ``seconds``, at the end of a settle window. Do nothing after ``LONGEST_SECONDS``."""
    if seconds <= LONGEST_SECONDS:
        call = functools.partial(handle, [conversation_id], tenant_id)
        runtime.timer().call_later(seconds + MARGIN_SECONDS, call)


def send(conversation_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these conversations have replies to deliver."""
    _waker().put(Work.SEND, conversation_ids, tenant_id)


def fetch(channel_ids: Sequence[int], tenant_id: int) -> None:
    """Hint that these channels have files to fetch."""
    _waker().put(FETCH, channel_ids, tenant_id)


def checkout(identity: str, tenant_id: int) -> None:
    """Have a worker answer a checkout, beside its lane. ``identity``: its message's, in hexadecimal."""
    runtime.timer().call_later(0.0, functools.partial(publisher.checkout, identity, tenant_id))


class Waker:
    """The thread that rings. It drops what it cannot leave: the sweeper finds the rows."""

    def __init__(self) -> None:
        self._hints: queue.SimpleQueue[Hint] = queue.SimpleQueue()
        self._broken_until = 0.0  # monotonic end of the time in which nobody rings
        vital_thread("wake", self._run)

    def put(self, kind: str, ids: Sequence[int], tenant_id: int) -> None:
        """Queue a hint for the ringing thread and return at once; drop it if too many wait."""
        if ids and self._hints.qsize() < HINTS:
            self._hints.put((kind, tenant_id, ids))

    def _run(self) -> None:
        while True:
            for kind, hints in self._gather().items():
                if time.monotonic() >= self._broken_until:
                    self._ring(kind, hints)

    def _gather(self) -> dict[str, dict[int, list[int]]]:
        """Wait for a hint. Return it with those that wait already, by kind of work and tenant."""
        gathered: dict[str, dict[int, list[int]]] = {}
        kind, tenant, ids = self._hints.get()
        while True:
            gathered.setdefault(kind, {}).setdefault(tenant, []).extend(ids)
            try:
                kind, tenant, ids = self._hints.get_nowait()
            except queue.Empty:
                return gathered

    def _ring(self, kind: str, hints: dict[int, list[int]]) -> None:
        """Leave hints and ring. After a failure, whatever it is, nobody rings for a while."""
        try:
            doorbell.ring(kind, hints)
        except Exception as error:
            self._broken_until = time.monotonic() + BREAKER_SECONDS
            log.warning("not rung", kind=kind, error=type(error).__name__)


_waker = runtime.kept(Waker)
