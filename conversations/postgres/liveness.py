"""Whether the database answers, judged by what the committer is writing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from conversations.postgres.stream import Stream

# A batch that takes longer shows a database that does not answer: other callers are refused at once
# instead of waiting behind it. Larger: more request threads wait in vain. Smaller: a slow batch
# refuses webhooks.
SILENT_SECONDS = 2.0
# The same after a failure, for the batch that tries again. Larger: request threads wait for each
# such attempt. Smaller: a database that is back but slow is taken for silent.
SILENT_AFTER_FAILURE_SECONDS = 0.1
# Items in a row that waited for a lock in vain: then the whole table is locked, and the rest need
# not try. Larger: each costs another lock_timeout (500 ms). Smaller: one row locked for long sends
# back the whole batch.
LOCK_WAITS = 2


class Liveness:
    """Owned by the committer's thread; ``silent`` is asked by all threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = float("inf")  # the batch that is being written
        self._away = False  # the last attempt ended without a connection
        self._stuck: Stream[Any, Any] | None = None  # its last write was silent: its table may be locked
        self.lock_waits = 0  # items in a row that waited for a lock in vain

    def silent(self) -> bool:
        """Return True while a batch has been waiting for an answer for too long."""
        limit = SILENT_AFTER_FAILURE_SECONDS if self._away or self._stuck else SILENT_SECONDS
        return self._clock() - self._began > limit

    def begin(self) -> None:
        self._began = self._clock()

    def end(self) -> float:
        """Return the seconds that the batch took."""
        seconds = self._clock() - self._began
        self._began = float("inf")
        return seconds

    def succeeded(self, stream: Stream[Any, Any]) -> None:
        self._away, self.lock_waits = False, 0
        if self._stuck is stream:  # another stream's success says nothing about a table that it does not touch
            self._stuck = None

    def failed(self, stream: Stream[Any, Any], error: Exception, away: bool) -> None:
        self._away = away
        if self.silent() and not stream.patient:
            self._stuck = stream
        if isinstance(error, psycopg.errors.LockNotAvailable):
            self.lock_waits += 1
