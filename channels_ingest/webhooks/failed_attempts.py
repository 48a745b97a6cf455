"""How often an address failed to prove who it is. In memory, bounded; signed requests pass."""

from __future__ import annotations

import threading
import time


class FailedAttempts:
    """Failures per address in the current window of this process."""

    # Length of a window in seconds, also sent as ``Retry-After``. Larger: an address over the limit
    # is refused for longer. Smaller: it may fail more often.
    SECONDS = 10
    # Failures of an address in one window; further ones are answered 429. Larger: a flood is told
    # later to wait. Smaller: senders that share an address are told sooner.
    FAILURES = 600
    # Addresses counted in one window; one more begins a new window. Larger: more memory. Smaller: a
    # flood from many addresses resets the counts sooner.
    ADDRESSES = 4096

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

    def is_over(self, address: str) -> bool:
        """Return True if the next failure of ``address`` is one too many."""
        return time.monotonic() - self._window_began <= self.SECONDS and self._failures.get(address, 0) >= self.FAILURES
