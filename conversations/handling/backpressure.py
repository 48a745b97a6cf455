"""Back-pressure: a process takes no hints while enough lanes wait for it. The hints stay in Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

# Lanes (conversations) that wait for this process at most before it takes more; those whose bot runs
# do not count. Larger: larger batches, and a tenant's lane waits behind more lanes of others; smaller:
# the process may run out of work between two tasks.
IN_HAND = 16
# Seconds for which a lane counts: rows that are locked elsewhere must not keep other tenants waiting.
# Longer: a few stuck lanes stop the process for longer; shorter: a slow process takes more than it can
# work on.
COUNTED_SECONDS = 2.0
# Seconds that a turn may wait for a thread or a place on the event loop; longer, and the process takes
# no more lanes. Longer: lanes wait here although another process is idle; shorter: a burst stops it.
QUEUED_SECONDS = 0.2
# Longest time that a task waits for room before it passes itself on to other processes. Longer: fewer
# tasks that go round; shorter: a process that is free gets the hints sooner.
ROOM_SECONDS = 0.5
# Seconds between two counts by a waiting task, which also counts when a lane is released: lanes
# whose bot began to run meanwhile no longer count. Longer: less CPU; shorter: the task goes on sooner.
LOOK_SECONDS = 0.02


class Backpressure:
    """Counts the lanes in hand. Thread-safe."""

    def __init__(self) -> None:
        self.waiting = False  # a task waits for room
        self._changed = threading.Condition()
        self._since: dict[int, float] = {}  # lane in hand -> monotonic time since when
        self._queued: dict[int, float] = {}  # lane whose turn waits for a thread -> since when, oldest first
        self._busy: set[int] = set()  # lanes whose bot is running

    def enter(self, lanes: Iterable[int]) -> None:
        """Count lanes that the process took."""
        with self._changed:
            self._since.update(dict.fromkeys(lanes, time.monotonic()))

    def leave(self, lanes: Iterable[int]) -> None:
        """Stop counting lanes whose locks this process released, and notify the waiting task.

        Only the count changes: the lanes' messages are in Postgres, for the next holder.
        """
        with self._changed:
            for lane in lanes:
                self._since.pop(lane, None)
                self._queued.pop(lane, None)
                self._busy.discard(lane)
            self._changed.notify_all()

    def mark_queued(self, lane: int) -> None:
        """Note that a lane's turn waits for a thread, or for a place on the event loop."""
        with self._changed:
            self._queued[lane] = time.monotonic()

    def mark_busy(self, lane: int) -> None:
        """Stop counting a lane: its bot is running."""
        with self._changed:
            self._queued.pop(lane, None)
            if lane in self._since:
                self._busy.add(lane)

    def mark_idle(self, lane: int) -> None:
        """Count a lane again, if the process still has it: its bot has ended, or waits no more."""
        with self._changed:
            self._queued.pop(lane, None)
            self._busy.discard(lane)

    def wait(self, closing: Callable[[], bool], seconds: float, *, woken: bool) -> bool:
        """Wait for room, at most ``seconds``. Return True if there is some, and not ``closing()``.

        ``woken``: lanes that are released early can be woken again (not without Redis).
        """
        end = time.monotonic() + seconds
        with self._changed:
            while not (room := self._has_room()) and not closing() and time.monotonic() < end:
                self.waiting = woken
                self._changed.wait(LOOK_SECONDS)
            self.waiting = False
        return room and not closing()

    def _has_room(self) -> bool:
        """Return True if fewer than ``IN_HAND`` lanes wait for us, and no turn waits for long.

        Lanes that are busy, or that were stuck for ``COUNTED_SECONDS``, do not count.
        """
        now = time.monotonic()
        if now - next(iter(self._queued.values()), now) > QUEUED_SECONDS:
            return False
        if len(self._since) - len(self._busy) < IN_HAND:
            return True
        recent = now - COUNTED_SECONDS
        return sum(since > recent and lane not in self._busy for lane, since in self._since.items()) < IN_HAND
