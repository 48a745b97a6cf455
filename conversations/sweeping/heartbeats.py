"""Which workers' heartbeats have stopped, by this process's own clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

# Seconds without a new heartbeat after which a worker counts as dead, while this process watched.
# Longer: lanes wait longer after a death; shorter: a worker that is merely slow (a stopped machine,
# a long pause) is taken for dead.
DEAD_SECONDS = 6.0


class Beats:
    """Remembers when this process saw each heartbeat change, by its own monotonic clock.

    Clocks of two machines are never compared, since they may differ.
    """

    def __init__(self) -> None:
        self._seen: dict[uuid.UUID, tuple[int, float]] = {}
        self._looked_at = 0.0

    def stopped(self, rows: Sequence[tuple[uuid.UUID, int]]) -> list[tuple[uuid.UUID, int]]:
        """Return those of the rows (incarnation, beat) that did not change for ``DEAD_SECONDS``."""
        now = time.monotonic()
        if now - self._looked_at > DEAD_SECONDS:
            self.forget()  # this process stood still, maybe with the whole machine
        self._looked_at = now
        seen_before, self._seen = self._seen, {}
        stopped = []
        for incarnation, beat in rows:
            seen = seen_before.get(incarnation)
            since = seen[1] if seen is not None and seen[0] == beat else now
            self._seen[incarnation] = (beat, since)
            if now - since > DEAD_SECONDS:
                stopped.append((incarnation, beat))
        return stopped

    def forget(self) -> None:
        """Begin to watch again: what changed while this process did not look is unknown."""
        self._seen.clear()
