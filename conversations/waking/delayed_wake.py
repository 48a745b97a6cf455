"""The one use of a countdown: a wake at the end of a settle window (2 s at most; longer waits are the sweeper's)."""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
import time

from conversations.waking import wake

LONGEST_SECONDS = 2.0


def wake_later(conversation_id: int, tenant_id: int, seconds: float) -> None:
    """Wake a lane in ``seconds``; nothing for more than ``LONGEST_SECONDS``."""
    if seconds <= LONGEST_SECONDS:
        _countdown().add(conversation_id, tenant_id, seconds + 0.005)


class Countdown:
    """One thread for all windows of a process."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, int, int, int]] = []
        self._tie = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="countdown", daemon=True).start()

    def add(self, conversation_id: int, tenant_id: int, seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._ends, (time.monotonic() + seconds, next(self._tie), conversation_id, tenant_id))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(self._ends[0][0] - time.monotonic() if self._ends else None)
                over = []
                while self._ends and self._ends[0][0] <= time.monotonic():
                    over.append(heapq.heappop(self._ends))
            for _, _, conversation_id, tenant_id in over:
                wake.handle([conversation_id], tenant_id)


@functools.cache
def _countdown() -> Countdown:
    return Countdown()
