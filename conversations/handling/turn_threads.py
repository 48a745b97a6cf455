"""A pool of threads for turns: few while turns are short, as many as needed while turns wait for
something.

A thread per turn would wake dozens at once for microseconds of work, all of which wait for the GIL.
Here a few threads take one turn after the other. Another thread joins only if turns are queued
while the running ones are stalled, so that a bot that waits delays others by ``TICK_SECONDS`` at
most.
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

# Seconds between two decisions whether to add threads. Longer: less CPU; shorter: a bot that waits
# for something delays other bots' turns for less time.
TICK_SECONDS = 0.005
# Below this number of threads one is added without asking whether the running ones are stalled.
# Larger: more contention for the GIL; smaller: the first slow turns delay others for longer.
EAGER_THREADS = 4
# A pool is stalled if its threads began fewer turns than this, each, in the last tick. Larger:
# threads are added sooner, with more contention for the GIL; smaller: later.
BRISK_TURNS = 3
# A stalled pool gets one thread, and one more for each so many queued turns. Larger: a long queue
# gets its threads over more ticks; smaller: more threads at once.
QUEUED_PER_THREAD = 8

Work = tuple[float, Callable[..., None], tuple[Any, ...]]


class TurnThreads:
    """Runs at most ``most`` pieces of work at once, and starts them in the order of ``submit``."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._queue: collections.deque[Work] = collections.deque()
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []  # threads without work, each asleep on its own lock
        self._threads = self._awake = 0
        self._taken = 0  # pieces of work taken from the queue in this tick
        self._has_queued = threading.Event()  # set while work is queued for which no thread was woken
        vital_thread(f"{name}-watch", self._watch)

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Queue a call. At least one thread is awake afterwards, or the system allows no more."""
        with self._lock:
            self._queue.append((time.monotonic(), function, arguments))
            must_watch = self._awake or not self._add_thread()  # else a thread was woken for it
        if must_watch and not self._has_queued.is_set():
            self._has_queued.set()

    def _add_thread(self) -> bool:
        """Wake an idle thread, or start one. Return False if none can be. Call with ``_lock`` held."""
        if self._idle:
            self._idle.pop().release()
        elif self._threads < self._most:
            try:
                vital_thread(f"{self._name}-{self._threads + 1}", self._serve)
            except RuntimeError:  # the system allows no more threads: the turns go on with those there are
                log.warning("no thread started", threads=self._threads)
                return False
            self._threads += 1
        else:
            return False
        self._awake += 1
        return True

    def _serve(self) -> None:
        """Run queued work, one piece after the other; sleep while there is none."""
        idle = threading.Lock()
        idle.acquire()
        while True:
            work = self._next_work(idle)
            if work is None:
                idle.acquire()
            else:
                self._run_work(*work)

    def _run_work(self, since: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Run one piece of work. An error is logged, so that the thread lives on."""
        try:
            function(*arguments)
        except Exception as error:  # nobody waits for its result; the next one needs this thread
            log.error("work failed", name=self._name, error=type(error).__name__, exc_info=True)

    def _next_work(self, idle: threading.Lock) -> Work | None:
        """Take the next work. Without any, list the thread as idle and return None: it sleeps on ``idle``."""
        with self._lock:
            if self._queue:
                self._taken += 1
                return self._queue.popleft()
            self._awake -= 1
            self._idle.append(idle)
            return None

    def _watch(self) -> None:
        """Every tick, add threads if work has waited for longer than a tick in a stalled pool."""
        while True:
            self._has_queued.wait()
            time.sleep(TICK_SECONDS)
            with self._lock:
                # Threads that are busy with the GIL would only be slowed down by another one.
                is_stalled = self._awake < EAGER_THREADS or self._taken < BRISK_TURNS * self._awake
                self._taken = 0
                if not self._queue:
                    self._has_queued.clear()
                elif time.monotonic() - self._queue[0][0] > TICK_SECONDS and is_stalled:
                    for _ in range(1 + len(self._queue) // QUEUED_PER_THREAD):
                        self._add_thread()
