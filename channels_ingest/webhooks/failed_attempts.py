"""How often an address failed to prove who it is. In memory, bounded; never asked about signed requests."""

from __future__ import annotations

import threading
import time


class Strangers:
    """Failures per address in the current window of this process."""

    SECONDS = 10
    FAILURES = 600
    ADDRESSES = 4096

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0
        self._failures: dict[str, int] = {}

    def too_many(self, address: str) -> bool:
        """Count one failure of ``address``; True once it is over the limit."""
        now = time.monotonic()
        with self._lock:
            if now - self._began > self.SECONDS or len(self._failures) >= self.ADDRESSES:
                self._began, self._failures = now, {}
            failures = self._failures[address] = self._failures.get(address, 0) + 1
        return failures > self.FAILURES
