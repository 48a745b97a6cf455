"""Room in a process: a task waits until few lanes of its line wait there for anything but their bots.

Meanwhile wakes wait in their tenants' queues, where none stands before another tenant's. A line is the queue through
which a wake came, so that a tenant with a backlog keeps its own tasks waiting, and nobody else's.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable

IN_HAND = 16  # lanes of a line that no bot is busy with: the task that brought them waits until fewer are left
PATIENCE_SECONDS = 10.0  # so long at most: lanes that somebody holds in the database keep nobody else from theirs,
STUCK_SECONDS = 60.0  # and for so long they are not counted
LOOK_SECONDS = 0.02  # turns that have become slow make room, too


class Room:
    """Lanes in hand, by line. For any thread."""

    def __init__(self) -> None:
        self.waiting = 0  # tasks whose lanes, once let go, can be woken again
        self._changed = threading.Condition()
        self._in_hand: collections.Counter[str] = collections.Counter()
        self._busy: collections.Counter[str] = collections.Counter()  # of these, with their bots
        self._stuck: dict[str, tuple[int, float]] = {}  # lanes that did not get on while a task had patience; until

    def enter(self, line: str, lanes: int) -> None:
        with self._changed:
            self._in_hand[line] += lanes

    def leave(self, lines: Iterable[str]) -> None:
        """Lanes were let go: their lines, one for each."""
        with self._changed:
            self._in_hand.subtract(lines)
            self._changed.notify_all()

    def begin(self, line: str) -> None:
        """A bot is busy with a lane."""
        with self._changed:
            self._busy[line] += 1

    def end(self, line: str) -> None:
        with self._changed:
            self._busy[line] -= 1

    def wait(self, line: str, closing: Callable[[], bool], *, woken: bool) -> None:
        """Until few lanes of ``line`` wait. ``woken``: those that are let go can be woken again."""
        end = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            self.waiting += woken
            while (crowded := self._is_crowded(line)) and time.monotonic() < end and not closing():
                self._changed.wait(LOOK_SECONDS)
            self.waiting -= woken
            if crowded:
                self._stuck[line] = self._crowd(line), time.monotonic() + STUCK_SECONDS

    def _is_crowded(self, line: str) -> bool:
        stuck, until = self._stuck.get(line, (0, 0.0))
        return self._crowd(line) - (stuck if time.monotonic() < until else 0) >= IN_HAND

    def _crowd(self, line: str) -> int:
        return self._in_hand[line] - self._busy[line]
