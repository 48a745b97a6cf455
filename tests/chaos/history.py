"""What was seen: one event a line, in memory and as JSONL. Times are monotonic (``t``) and of the wall (``w``), in ns.

    {"t": .., "w": .., "p": "gen", "k": "invoke", "f": "webhook", "ch": "keep", "u": "keep-3", "m": 7, "a": 4711, ...}

``p``: who saw it (gen, nem: the faults, run). ``k``: invoke, ok, fail, info, event. An attempt (``a``) begins with
invoke and ends with ok (2xx), fail (surely not taken) or info (nobody knows).
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class History:
    """Thread-safe; the file is for people and for later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._lock = threading.Lock()
        self._file = path.open("w", buffering=1 << 16)
        self.began = Moment()

    def add(self, who: str, kind: str, what: str, /, **words: Any) -> Event:
        event = {"t": time.monotonic_ns(), "w": time.time_ns(), "p": who, "k": kind, "f": what, **words}
        with self._lock:
            self.events.append(event)
            self._file.write(json.dumps(event, ensure_ascii=True) + "\n")
        return event

    def of(self, what: str) -> list[Event]:
        with self._lock:
            return [event for event in self.events if event["f"] == what]

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Moment:
    """The same moment on both clocks, to set one against the other."""

    def __init__(self) -> None:
        self.t, self.w = time.monotonic_ns(), time.time_ns()

    def seconds(self, event_t: int) -> float:
        """Seconds after this moment, by the monotonic clock."""
        return (event_t - self.t) / 1e9

    def wall_seconds(self, wall: float) -> float:
        """Seconds after this moment, of a time in seconds since the epoch."""
        return wall - self.w / 1e9
