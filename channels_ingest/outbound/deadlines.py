"""A total deadline for each outbound call: at its end the connection is cut, whatever it does.

Why by hand: urllib3 and httpx limit each read, not the whole call. A server that sends a byte now
and then would hold a call, its thread and its lane for ever. Any client would need this file. One
thread per process watches all calls, so a deadline costs no system call on the way.
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

RETRY_SECONDS = 1.0  # a call over its deadline that has no connection yet is looked at again


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
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # below TLS: a thread that reads sees the end

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()


class Watch:
    """The deadline of one call, on the monotonic clock."""

    def __init__(self, deadline: float) -> None:
        self._lock = threading.Lock()
        self._handle: Handle | None = None
        self._ended = self._cut = False
        _guard().add(deadline, self)

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


class Guard:
    """The thread that cuts connections when deadlines are over."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Watch]] = []  # a heap
        self._tie = itertools.count()  # orders equal deadlines, because watches have no order
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
                self.add(time.monotonic() + RETRY_SECONDS, watch)

    def _next(self) -> Watch:
        with self._changed:
            while not self._waiting or self._waiting[0][0] > time.monotonic():
                self._changed.wait(self._waiting[0][0] - time.monotonic() if self._waiting else None)
            return heapq.heappop(self._waiting)[2]


@functools.cache
def _guard() -> Guard:
    return Guard()


os.register_at_fork(after_in_child=_guard.cache_clear)
