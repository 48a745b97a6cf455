"""How many lines of the spool wait, and since when: for health and metrics."""

from __future__ import annotations

import threading
import time
from typing import Any

from conversations.storing import spool
from conversations.storing.spool_format import STORED, is_stored, read_line

# Bytes at the start of the log that identify it: after the mark, which changes, they hold random
# bytes of the first line. If they differ from those read at the last look, the log was
# emptied and filled again. Smaller: without the random bytes, a new log may pass for the old one.
# Larger than the first line: a line appended behind it looks like a new log.
HEAD_BYTES = 64


class Tally:
    """Counts the lines that wait; remembers how far it has read.

    It reads each line only twice, when it is new and when it is stored, since a spool can be large.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = b""  # the log's first bytes, without the mark
        self._first = 0  # offset of the first line that may wait
        self._end = 0  # offset up to which lines are counted
        self._count = 0  # lines between these two

    def look(self) -> dict[str, Any]:
        """Return ``count``, ``oldest_seconds`` (None if empty) and ``bad`` (lines not opened)."""
        with self._lock:
            if not spool.has_lines():
                return {"count": 0, "oldest_seconds": None, "bad": _count_bad()}
            with spool.path("log").open("rb") as log:
                self._count_new(log)
                oldest = self._skip_stored(log)
            age = None if oldest is None else round(max(0.0, time.time() - oldest), 1)
            return {"count": self._count, "oldest_seconds": age, "bad": _count_bad()}

    def _count_new(self, log: Any) -> None:
        """Add the whole lines that were appended since the last look."""
        start = log.read(HEAD_BYTES)[len(STORED) :]  # without the mark, which changes
        if start != self._start:  # the log was emptied and filled again
            self._start, self._first, self._end, self._count = start, 0, 0, 0
        log.seek(self._end)
        while (line := log.readline()).endswith(b"\n"):
            self._end += len(line)
            self._count += 1

    def _skip_stored(self, log: Any) -> float | None:
        """Move past the stored lines at the front, and take them off the count.

        Return the time of the first line that waits (unix seconds), or None if none waits. Stored
        lines behind it are still counted: until it is stored, the count may be too high.
        """
        log.seek(self._first)
        while self._first < self._end:
            line = log.readline()
            if not is_stored(line):
                return read_line(self._first, line).at
            self._first += len(line)
            self._count -= 1
        return None


def _count_bad() -> int:
    """Return how many lines could not be opened and were kept for people."""
    try:
        return spool.path("bad").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


tally = Tally()
