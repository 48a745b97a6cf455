"""How many lines of the spool wait, and since when: for health and metrics."""

from __future__ import annotations

import threading
import time
from typing import Any

from conversations.storing import spool
from conversations.storing.spool_format import STORED, read_line

HEAD_BYTES = 64  # at the head of the log; other bytes there mean that it is a new log


class Tally:
    """Counts the lines that wait. It reads a line twice: when it is new, and when it is stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget(b"")

    def _forget(self, head: bytes) -> None:
        self._head, self._first, self._end, self._count = head, 0, 0, 0

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
        head = log.read(HEAD_BYTES)[1:]  # without the mark, which changes
        if head != self._head:  # the log was emptied and filled again
            self._forget(head)
        log.seek(self._end)
        while (line := log.readline()).endswith(b"\n"):
            self._end += len(line)
            self._count += 1

    def _skip_stored(self, log: Any) -> float | None:
        """Return the time of the first line that waits."""
        log.seek(self._first)
        while self._first < self._end:
            line = log.readline()
            if not line.startswith(STORED):
                return read_line(self._first, line).at
            self._first += len(line)
            self._count -= 1
        return None


def _count_bad() -> int:
    try:
        return spool.path("bad").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


tally = Tally()
