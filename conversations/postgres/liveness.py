"""Whether the database answers, judged by what the committer is writing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from conversations.postgres.stream import Stream

# Seconds. A batch that takes longer shows that the database does not answer: other callers are
# refused at once instead of waiting behind it. Larger: more request threads wait in vain. Smaller:
# webhooks are refused during a slow batch.
SILENT_SECONDS = 2.0
# The same limit, in seconds, for a batch that is tried after a failure. Larger: request threads
# wait for each such attempt. Smaller: a database that is back but slow is taken for silent.
SILENT_AFTER_FAILURE_SECONDS = 0.1
# When so many items in a row have waited for a lock in vain, we assume that the whole table is
# locked, and the rest of the batch is requeued. Larger: each further item costs another
# lock_timeout (500 ms). Smaller: a single locked row requeues the whole batch.
LOCK_WAITS = 2


class Liveness:
    """What recent batches say about the database.

    The committer's thread owns it; all threads may call ``silent``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = float("inf")  # when the batch that is being written began; inf: there is none
        self._away = False  # True: the last attempt ended without a connection
        self._stuck: Stream[Any, Any] | None = None  # its last write was silent: a table may be locked
        self.lock_waits = 0  # items in a row that waited for a lock in vain

    def silent(self) -> bool:
        """Return True while a batch has been waiting for an answer for too long."""
        limit = SILENT_AFTER_FAILURE_SECONDS if self._away or self._stuck else SILENT_SECONDS
        return self._clock() - self._began > limit

    def begin(self) -> None:
        """Note that a batch begins to be written."""
        self._began = self._clock()

    def end(self) -> float:
        """Note that the batch has ended. Return the seconds that it took."""
        seconds = self._clock() - self._began
        self._began = float("inf")
        return seconds

    def succeeded(self, stream: Stream[Any, Any]) -> None:
        """Note an attempt that succeeded: the database is there."""
        self._away, self.lock_waits = False, 0
        if self._stuck is stream:  # another stream's success says nothing about a table that it does not touch
            self._stuck = None

    def failed(self, stream: Stream[Any, Any], error: Exception, away: bool) -> None:
        """Note a failed attempt. ``away``: it ended without a connection."""
        self._away = away
        if self.silent() and not stream.patient:
            self._stuck = stream
        if isinstance(error, psycopg.errors.LockNotAvailable):
            self.lock_waits += 1
