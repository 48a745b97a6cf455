"""Back-pressure: a task of Celery's waits while this process has enough lanes of its queue in hand.

Meanwhile further wakes wait in Redis. Lanes are counted by the queue through which their wake came,
so that a tenant with a backlog blocks only tasks of its own queue (see ``queues.QUEUES``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

# A task returns when fewer lanes (conversations) of its queue than this wait for the process; lanes
# whose bot runs do not count. Larger: larger batches, and a tenant's wake waits behind more of its
# own lanes; smaller: the process may run out of work between two tasks.
IN_HAND = 16
# Longest time that a task waits: lanes whose rows are locked elsewhere must not block other lanes.
# Longer: a few stuck lanes hold a task for longer; shorter: a burst counts as stuck.
PATIENCE_SECONDS = 10.0
# Seconds for which lanes that did not move in PATIENCE_SECONDS are left out of the count. Longer:
# the process takes more lanes than it can work on; shorter: they block tasks again soon.
STUCK_SECONDS = 60.0
# Seconds between two counts by a waiting task, which also counts when a lane is released: lanes
# whose bot began to run meanwhile no longer count. Longer: less CPU; shorter: the task returns
# sooner.
LOOK_SECONDS = 0.02


class Backpressure:
    """Counts the lanes in hand by queue. Thread-safe."""

    def __init__(self) -> None:
        self.waiting = 0  # waiting tasks, of those whose lanes can be woken again after an early release
        self._changed = threading.Condition()
        self._queue_of: dict[int, str] = {}  # lane in hand -> name of the Celery queue of its wake
        self._busy: set[int] = set()  # lanes whose bot is running
        self._stuck: dict[str, tuple[int, float]] = {}  # queue -> lanes that did not move; until when

    def enter(self, queue: str, lanes: Iterable[int]) -> None:
        """Count lanes that the process took for a wake of ``queue``."""
        with self._changed:
            self._queue_of.update(dict.fromkeys(lanes, queue))

    def leave(self, lanes: Iterable[int]) -> None:
        """Stop counting lanes whose locks this process released, and notify the waiting tasks.

        Only the count changes: the lanes' messages are in Postgres, for the next holder.
        """
        with self._changed:
            for lane in lanes:
                self._queue_of.pop(lane, None)
                self._busy.discard(lane)
            self._changed.notify_all()

    def mark_busy(self, lane: int) -> None:
        """Stop counting a lane: its bot is running."""
        with self._changed:
            self._busy.add(lane)

    def mark_idle(self, lane: int) -> None:
        """Count a lane again, if the process still has it: its bot has ended."""
        with self._changed:
            self._busy.discard(lane)

    def wait(self, queue: str, closing: Callable[[], bool], *, woken: bool) -> None:
        """Block until fewer than ``IN_HAND`` lanes of ``queue`` wait for us, or ``closing()``.

        Gives up after ``PATIENCE_SECONDS`` and leaves the lanes that did not move out of later
        counts. ``woken``: lanes that are released early can be woken again (not without Redis).
        """
        end = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            self.waiting += woken
            while (full := self._is_full(queue)) and time.monotonic() < end and not closing():
                self._changed.wait(LOOK_SECONDS)
            self.waiting -= woken
            if full:
                self._stuck[queue] = self._count_waiting(queue), time.monotonic() + STUCK_SECONDS

    def _is_full(self, queue: str) -> bool:
        """Return True if ``IN_HAND`` lanes of the queue wait, without those that are stuck."""
        stuck, until = self._stuck.get(queue, (0, 0.0))
        return self._count_waiting(queue) - (stuck if time.monotonic() < until else 0) >= IN_HAND

    def _count_waiting(self, queue: str) -> int:
        """Return how many lanes of the queue the process has whose bot is not running."""
        return sum(lane_queue == queue and lane not in self._busy for lane, lane_queue in self._queue_of.items())
