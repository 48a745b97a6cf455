"""A total deadline for each outbound call: at its end the connection is cut, whatever it is doing.

A socket's timeout is one per read, so a server that sends a byte now and then would hold a call, its thread and its
lane for ever. One thread of the process looks after all calls.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import os
import socket
import threading
import time

AGAIN_SECONDS = 1.0  # the call is not connected yet: looked at again


class Handle:
    """A descriptor of its own for a connection, whoever wraps, detaches or closes the other.

    It lives as long as the connection or a call needs it: what is closed before its answer is read can still be cut.
    """

    _socket: socket.socket | None = None  # where no descriptor is left

    def __init__(self, connected: socket.socket) -> None:
        self._socket = socket.socket(fileno=os.dup(connected.fileno()))

    def cut(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # below TLS: who reads wakes up and finds the end

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()


class Watch:
    """One call."""

    def __init__(self, deadline: float) -> None:
        self._lock = threading.Lock()
        self._handle: Handle | None = None
        self._ended = self._cut = False
        _guard().add(deadline, self)

    def hold(self, handle: Handle) -> None:
        """The connection that the call uses."""
        with self._lock:
            self._handle = handle

    def end(self) -> bool:
        """The connection is not touched after this. False: it was cut."""
        with self._lock:
            self._ended, self._handle = True, None
            return not self._cut

    def cut(self) -> bool:
        """False: the call goes on without a connection."""
        with self._lock:
            if self._ended or self._handle is None:
                return self._ended
            self._cut = True
            self._handle.cut()
            return True


class Guard:
    """The thread that cuts."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Watch]] = []
        self._tie = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="deadlines", daemon=True).start()

    def add(self, deadline: float, watch: Watch) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (deadline, next(self._tie), watch))
            if self._waiting[0][2] is watch:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            watch = self._next()
            if not watch.cut():
                self.add(time.monotonic() + AGAIN_SECONDS, watch)

    def _next(self) -> Watch:
        with self._changed:
            while not self._waiting or self._waiting[0][0] > time.monotonic():
                self._changed.wait(self._waiting[0][0] - time.monotonic() if self._waiting else None)
            return heapq.heappop(self._waiting)[2]


@functools.cache
def _guard() -> Guard:
    return Guard()


os.register_at_fork(after_in_child=_guard.cache_clear)
