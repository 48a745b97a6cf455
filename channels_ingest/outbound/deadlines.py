"""A total deadline for each outbound call: at its end the connection is cut, whatever it does.

Why by hand: urllib3 and httpx limit each read, not the whole call. A server that sends a byte now
and then would hold a call, its thread and its lane for ever. Any client would need this file. One
thread per process watches all calls, so a deadline costs no system call on the way.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time

from conversations.concurrency import Timer

# Seconds until a call is looked at again that is over its deadline and still connects. Larger: it
# may last longer. Smaller: the timer works more often.
RETRY_SECONDS = 1.0
# Seconds for which a call with a least rate may get nothing. Larger: a server that sends a byte now and
# then holds a thread for longer. Smaller: a server that takes long to begin, or a link that stalls, is cut.
PATIENCE_SECONDS = 15.0


class Handle:
    """A second descriptor of a connection, by which another thread can cut it.

    It stays valid while the connection or a call refers to it, even if the first descriptor is
    wrapped, detached or closed. So a connection that is closed before its answer is read can still
    be cut.
    """

    _socket: socket.socket | None = None  # stays None if the process has no descriptor left

    def __init__(self, connected: socket.socket) -> None:
        self._socket = socket.socket(fileno=os.dup(connected.fileno()))

    def cut(self) -> None:
        """Shut the connection down: a thread that reads from it sees its end at once."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # below TLS: a thread that reads sees the end

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()


class Watch:
    """The deadline of one call, on the monotonic clock.

    With a ``least_rate``, in bytes a second, it comes sooner for an answer that arrives slower.
    """

    def __init__(self, deadline: float, least_rate: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._handle: Handle | None = None
        self._ended = self._cut = False
        self._deadline = self._latest = deadline
        self._least_rate = least_rate
        if least_rate:
            self._deadline = min(deadline, time.monotonic() + PATIENCE_SECONDS)
        _timer().call_later(self._deadline - time.monotonic(), self._end_in_time)

    def seconds_left(self, most: float) -> float:
        """Return the seconds until the deadline, at most ``most``. Raises ``TimeoutError`` after it."""
        left = min(self._deadline - time.monotonic(), most)
        if left <= 0:
            raise TimeoutError
        return left

    def received(self, size: int) -> None:
        """Move the deadline of a call with a least rate on, by the time that ``size`` bytes may take."""
        if self._least_rate:
            earned = self._deadline + size / self._least_rate
            self._deadline = min(self._latest, earned, time.monotonic() + PATIENCE_SECONDS)

    def hold(self, handle: Handle) -> None:
        """Name the connection that the call uses from here on."""
        with self._lock:
            self._handle = handle

    def end(self) -> bool:
        """End the call: its connection is not cut after this. Return False if it was cut before."""
        with self._lock:
            self._ended, self._handle = True, None
            return not self._cut

    def cut(self) -> bool:
        """Cut the connection of the call. Return False if the call has none yet."""
        with self._lock:
            if self._ended or self._handle is None:
                return self._ended
            self._cut = True
            self._handle.cut()
            return True

    def _end_in_time(self) -> None:
        """Cut the connection at the deadline. If that has moved on, or there is none yet, come back."""
        left = 0.0 if self._ended else self._deadline - time.monotonic()
        if left > 0 or not self.cut():
            _timer().call_later(left if left > 0 else RETRY_SECONDS, self._end_in_time)


@functools.cache
def _timer() -> Timer:
    """Return the thread of this process that watches all deadlines."""
    return Timer("deadlines")


os.register_at_fork(after_in_child=_timer.cache_clear)  # a child has no thread of its parent
