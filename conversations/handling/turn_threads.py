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
FEW = 4  # that many join without asking whether those at work get on
BRISK = 3  # turns per thread and tick: whoever does as many is not waiting for anything

Work = tuple[float, Callable[..., None], tuple[Any, ...]]


class Threads:
    """At most ``most`` pieces of work at once, begun in the order in which they came."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._line: collections.deque[Work] = collections.deque()
        self._lock = threading.Lock()
        self._resting: list[threading.Lock] = []  # threads without work, each asleep on its own lock
        self._threads = self._awake = self._taken = 0
        self._more = threading.Event()  # somebody stands in line
        vital_thread(f"{name}-watch", self._watch)

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            self._line.append((time.monotonic(), function, arguments))
            if not self._awake:
                self._join()
        if not self._more.is_set():
            self._more.set()

    def _join(self) -> None:
        """One more thread at work; the lock is held."""
        if self._resting:
            self._resting.pop().release()
        elif self._threads < self._most:
            self._threads += 1
            vital_thread(f"{self._name}-{self._threads}", self._serve)
        else:
            return
        self._awake += 1

    def _serve(self) -> None:
        rest = threading.Lock()
        rest.acquire()
        while True:
            work = self._take(rest)
            if work is None:
                rest.acquire()
            else:
                self._do(*work)

    def _do(self, since: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception as error:  # nobody waits for its result; the next one needs this thread
            log.error("work failed", name=self._name, error=type(error).__name__, exc_info=True)

    def _take(self, rest: threading.Lock) -> Work | None:
        with self._lock:
            if self._line:
                self._taken += 1
                return self._line.popleft()
            self._awake -= 1
            self._resting.append(rest)
            return None

    def _watch(self) -> None:
        while True:
            self._more.wait()
            time.sleep(TICK_SECONDS)
            with self._lock:
                taken, self._taken = self._taken, 0
                if not self._line:
                    self._more.clear()
                elif time.monotonic() - self._line[0][0] > TICK_SECONDS and self._get_on_badly(taken):
                    for _ in range(1 + len(self._line) // 8):
                        self._join()

    def _get_on_badly(self, taken: int) -> bool:
        return self._awake < FEW or taken < BRISK * self._awake
