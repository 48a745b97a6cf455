"""Back-pressure: a task of Celery's waits while this process has enough lanes of its queue in hand.

Meanwhile further wakes wait in Redis. Lanes are counted by the queue through which their wake came, so that
a tenant with a backlog blocks only tasks of its own queue (see ``queues.QUEUES``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

IN_HAND = 16  # lanes of a queue that no bot is busy with: the task that brought them waits until fewer are left
PATIENCE_SECONDS = 10.0  # so long at most: lanes that somebody holds in the database keep nobody else from theirs,
STUCK_SECONDS = 60.0  # and for so long they are not counted
LOOK_SECONDS = 0.02  # turns that have become slow make room, too


class Backpressure:
    """The lanes in hand, by their ids. For any thread."""

    def __init__(self) -> None:
        self.waiting = 0  # tasks whose lanes, once let go, can be woken again
        self._changed = threading.Condition()
        self._queues: dict[int, str] = {}  # lane -> its queue
        self._busy: set[int] = set()  # lanes of these whose bot is at work
        self._stuck: dict[str, tuple[int, float]] = {}  # lanes that did not get on while a task had patience; until

    def enter(self, queue: str, lanes: Iterable[int]) -> None:
        with self._changed:
            self._queues.update(dict.fromkeys(lanes, queue))

    def leave(self, lanes: Iterable[int]) -> None:
        """They were let go."""
        with self._changed:
            for lane in lanes:
                self._queues.pop(lane, None)
                self._busy.discard(lane)
            self._changed.notify_all()

    def mark_busy(self, lane: int) -> None:
        """A bot is busy with it."""
        with self._changed:
            self._busy.add(lane)

    def mark_idle(self, lane: int) -> None:
        with self._changed:
            self._busy.discard(lane)

    def wait(self, queue: str, closing: Callable[[], bool], *, woken: bool) -> None:
        """Until few lanes of ``queue`` wait. ``woken``: those that are let go can be woken again."""
        end = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            self.waiting += woken
            while (full := self._is_full(queue)) and time.monotonic() < end and not closing():
                self._changed.wait(LOOK_SECONDS)
            self.waiting -= woken
            if full:
                self._stuck[queue] = self._count_waiting(queue), time.monotonic() + STUCK_SECONDS

    def _is_full(self, queue: str) -> bool:
        stuck, until = self._stuck.get(queue, (0, 0.0))
        return self._count_waiting(queue) - (stuck if time.monotonic() < until else 0) >= IN_HAND

    def _count_waiting(self, queue: str) -> int:
        return sum(its == queue and lane not in self._busy for lane, its in self._queues.items())
