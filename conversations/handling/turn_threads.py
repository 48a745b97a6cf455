"""Threads for turns: few while turns are short, as many as needed while they wait.

A thread per turn would wake dozens at once for work of microseconds, all of them waiting for the interpreter's one
lock. So a few threads take one turn after the other, and another joins them only when turns stand in line although
those at work do not get on: a bot that waits for something holds up nobody for longer than ``TICK_SECONDS``.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from conversations.concurrency import vital_thread

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.005
EAGER_THREADS = 4  # that many join without asking whether those at work get on
BRISK_TURNS = 3  # turns per thread and tick: whoever does as many is not waiting for anything

Work = tuple[float, Callable[..., None], tuple[Any, ...]]


class TurnThreads:
    """At most ``most`` pieces of work at once, begun in the order in which they came."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._queue: collections.deque[Work] = collections.deque()
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []  # threads without work, each asleep on its own lock
        self._threads = self._awake = self._taken = 0
        self._more = threading.Event()  # somebody stands in line
        vital_thread(f"{name}-watch", self._watch)

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            self._queue.append((time.monotonic(), function, arguments))
            if not self._awake:
                self._add_thread()
        if not self._more.is_set():
            self._more.set()

    def _add_thread(self) -> None:
        """One more thread at work; the lock is held."""
        if self._idle:
            self._idle.pop().release()
        elif self._threads < self._most:
            self._threads += 1
            vital_thread(f"{self._name}-{self._threads}", self._serve)
        else:
            return
        self._awake += 1

    def _serve(self) -> None:
        idle = threading.Lock()
        idle.acquire()
        while True:
            work = self._next_work(idle)
            if work is None:
                idle.acquire()
            else:
                self._do(*work)

    def _do(self, since: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception as error:  # nobody waits for its result; the next one needs this thread
            log.error("work failed", name=self._name, error=type(error).__name__, exc_info=True)

    def _next_work(self, idle: threading.Lock) -> Work | None:
        with self._lock:
            if self._queue:
                self._taken += 1
                return self._queue.popleft()
            self._awake -= 1
            self._idle.append(idle)
            return None

    def _watch(self) -> None:
        while True:
            self._more.wait()
            time.sleep(TICK_SECONDS)
            with self._lock:
                taken, self._taken = self._taken, 0
                if not self._queue:
                    self._more.clear()
                elif time.monotonic() - self._queue[0][0] > TICK_SECONDS and self._is_stalled(taken):
                    for _ in range(1 + len(self._queue) // 8):
                        self._add_thread()

    def _is_stalled(self, taken: int) -> bool:
        return self._awake < EAGER_THREADS or taken < BRISK_TURNS * self._awake
