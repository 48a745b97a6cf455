"""How often an address failed to prove who it is. In memory, bounded; signed requests pass."""

from __future__ import annotations

import threading
import time


class FailedAttempts:
    """Failures per address in the current window of this process."""

    SECONDS = 10  # length of a window, and what ``Retry-After`` says
    FAILURES = 600  # per address and window; further ones are answered 429, so a flood costs less
    ADDRESSES = 4096  # remembered at most; one more begins a new window, which bounds the memory

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window_began = 0.0  # monotonic clock
        self._failures: dict[str, int] = {}

    def count(self, address: str) -> bool:
        """Count a failure of ``address``. Return True if it has more than ``FAILURES`` now."""
        now = time.monotonic()
        with self._lock:
            if now - self._window_began > self.SECONDS or len(self._failures) >= self.ADDRESSES:
                self._window_began, self._failures = now, {}
            failures = self._failures[address] = self._failures.get(address, 0) + 1
        return failures > self.FAILURES
