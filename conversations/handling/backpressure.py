"""Room in a process: a task waits until few lanes of its line wait there for anything but their bots.

Meanwhile wakes wait in their queues. A line is the queue through which a wake came: a tenant with a backlog keeps
waiting only tasks of its own queue (see ``queues.QUEUES``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

IN_HAND = 16  # lanes of a line that no bot is busy with: the task that brought them waits until fewer are left
PATIENCE_SECONDS = 10.0  # so long at most: lanes that somebody holds in the database keep nobody else from theirs,
STUCK_SECONDS = 60.0  # and for so long they are not counted
LOOK_SECONDS = 0.02  # turns that have become slow make room, too


class Room:
    """The lanes in hand, by their ids. For any thread."""

    def __init__(self) -> None:
        self.waiting = 0  # tasks whose lanes, once let go, can be woken again
        self._changed = threading.Condition()
        self._lines: dict[int, str] = {}  # lane -> its line
        self._busy: set[int] = set()  # lanes of these whose bot is at work
        self._stuck: dict[str, tuple[int, float]] = {}  # lanes that did not get on while a task had patience; until

    def enter(self, line: str, lanes: Iterable[int]) -> None:
        with self._changed:
            self._lines.update(dict.fromkeys(lanes, line))

    def leave(self, lanes: Iterable[int]) -> None:
        """They were let go."""
        with self._changed:
            for lane in lanes:
                self._lines.pop(lane, None)
                self._busy.discard(lane)
            self._changed.notify_all()

    def begin(self, lane: int) -> None:
        """A bot is busy with it."""
        with self._changed:
            self._busy.add(lane)

    def end(self, lane: int) -> None:
        with self._changed:
            self._busy.discard(lane)

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
        return sum(its == line and lane not in self._busy for lane, its in self._lines.items())
