"""Threads of the core: vital ones, batching ones, timed calls, answers kept for a while, shared slots."""

from __future__ import annotations

import collections
import contextlib
import functools
import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, ParamSpec, TypeVar

import structlog

log = structlog.get_logger(__name__)

# A time of the monotonic clock before all others: a cache that expired then was never filled.
NEVER = float("-inf")

Answer = TypeVar("Answer")
Load = TypeVar("Load")
Posted = ParamSpec("Posted")


def vital_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread without which its process must not go on.

    If ``target`` raises, the process ends and its supervisor starts a new one. A process that went
    on without the thread would keep its lanes (conversations) locked, and nobody would work on
    them. If ``target`` returns, the process goes on.
    """
    thread = threading.Thread(target=_run_vital, args=(name, target), name=name, daemon=True)
    thread.start()
    return thread


def _run_vital(name: str, target: Callable[[], object]) -> None:
    try:
        target()
    except BaseException as error:
        log.critical("vital thread died", thread=name, error=type(error).__name__, exc_info=True)
        end_process()


def end_process() -> None:
    """End this process at once. An ordinary exit would wait for threads that may never end."""
    os._exit(70)


class Stage(Generic[Load]):
    """A vital thread that works in batches, so that one round trip serves many loads.

    While ``work`` runs, the next batch gathers. ``work`` gets the loads in the order of ``put``, at
    most ``most`` at a time. Larger: fewer round trips, each of them longer.
    """

    def __init__(self, name: str, work: Callable[[list[Load]], None], most: int) -> None:
        self._name, self._work, self._most = name, work, most
        self._waiting: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._working = threading.Lock()
        vital_thread(name, self._serve)

    def put(self, loads: Iterable[Load]) -> None:
        for load in loads:
            self._waiting.put(load)

    def run(self, loads: list[Load]) -> None:
        """Work in the caller's thread if the stage is idle, which saves a hand-off; else ``put``."""
        if len(loads) <= self._most and self._waiting.empty() and self._working.acquire(blocking=False):
            try:
                _run_vital(self._name, functools.partial(self._work, loads))
            finally:
                self._working.release()
        else:
            self.put(loads)

    def _serve(self) -> None:
        while True:
            load = self._waiting.get()
            with self._working:
                self._work(self._gather(load))

    def _gather(self, load: Load) -> list[Load]:
        """Return ``load`` with those that wait already, without waiting for more."""
        loads = [load]
        while len(loads) < self._most:
            try:
                loads.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return loads


class Timer:
    """One vital thread that calls functions when their time comes, in the order of their times.

    Functions must be short, since the later ones wait for them. An exception is only logged.
    """

    def __init__(self, name: str) -> None:
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._tie = itertools.count()  # calls of the same time come in the order of their requests
        self._changed = threading.Condition()
        self._stopped = False
        vital_thread(name, self._run)

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._calls)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call ``function`` once, in the timer's thread, ``seconds`` from now."""
        call = (time.monotonic() + seconds, next(self._tie), function)
        with self._changed:
            heapq.heappush(self._calls, call)
            if self._calls[0] is call:
                self._changed.notify()

    def stop(self) -> None:
        """Drop the calls that wait, and end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while function := self._next():
            try:
                function()
            except Exception as error:  # no caller waits for it; the later calls must still be made
                log.error("a timed call failed", error=type(error).__name__, exc_info=True)
            del function  # what it refers to must not live until the next call

    def _next(self) -> Callable[[], object] | None:
        """Wait for the earliest call's time, and return its function; None: the timer is stopped."""
        with self._changed:
            while not self._stopped and (not self._calls or self._calls[0][0] > time.monotonic()):
                self._changed.wait(self._calls[0][0] - time.monotonic() if self._calls else None)
            return None if self._stopped else heapq.heappop(self._calls)[2]


class Mailbox:
    """One vital thread that makes the calls which other threads post, in the order of ``post``.

    What only it changes needs no lock. It takes at most ``most`` calls at a time, and calls
    ``after_pass()`` behind them.
    """

    def __init__(self, name: str, most: int, after_pass: Callable[[], object]) -> None:
        self._after_pass = after_pass
        self._stage: Stage[Callable[[], object]] = Stage(name, self._run, most)
        self._timer = Timer(f"{name}-timer")

    def post(self, function: Callable[Posted, object], *args: Posted.args, **kwargs: Posted.kwargs) -> None:
        self._stage.put([functools.partial(function, *args, **kwargs)])

    def post_later(
        self, seconds: float, function: Callable[Posted, object], *args: Posted.args, **kwargs: Posted.kwargs
    ) -> None:
        self._timer.call_later(seconds, functools.partial(self.post, function, *args, **kwargs))

    def _run(self, calls: list[Callable[[], object]]) -> None:
        for call in calls:
            call()
        self._after_pass()


class Fresh(Generic[Answer]):
    """A cached answer of ``ask``: a call returns it, and asks again once it is ``seconds`` old.

    One thread asks; meanwhile the others get the last answer, and wait only if there is none yet.
    ``ask`` gets the last answer (``first``, if there is none), so that it can return that one when,
    for example, the database is away. If it raises, its caller gets the exception, and the next
    caller asks again.
    """

    def __init__(self, ask: Callable[[Answer], Answer], seconds: float, first: Answer) -> None:
        self._ask, self._seconds = ask, seconds
        self._asking = threading.Lock()
        self._last, self._until = first, NEVER

    def change(self, function: Callable[[Answer], Answer]) -> None:
        """Replace the last answer by ``function`` of it, after an ``ask`` that would undo it."""
        with self._asking:
            self._last = function(self._last)

    def __call__(self) -> Answer:
        if time.monotonic() < self._until:
            return self._last
        if not self._asking.acquire(blocking=self._until == NEVER):
            return self._last
        try:
            if time.monotonic() >= self._until:
                self._last = self._ask(self._last)
                self._until = time.monotonic() + self._seconds
        finally:
            self._asking.release()
        return self._last


class Shares:
    """Slots that owners share, for all threads of a process: ``limit`` in all, at most ``each`` of one owner.

    Without ``each``, no owner gets more than it leaves free: alone half, two a third each.
    """

    def __init__(self, limit: int, each: int | None = None) -> None:
        self._limit, self._each = limit, each
        self._changed = threading.Condition()
        self._taken: collections.Counter[Hashable] = collections.Counter()

    @contextlib.contextmanager
    def take(self, owner: Hashable, count: int = 1, seconds: float = 0.0) -> Iterator[bool]:
        """Take ``count`` slots for the length of a ``with``; its value is False if they did not become free.

        Waits for them for at most ``seconds``. More than half of the limit counts as half.
        """
        with self._changed:
            taken = self._changed.wait_for(lambda: self._fits(owner, count), seconds)
            if taken:
                self._taken[owner] += count
        try:
            yield taken
        finally:
            if taken:
                with self._changed:
                    self._taken[owner] -= count
                    if not self._taken[owner]:
                        del self._taken[owner]
                    self._changed.notify_all()

    def _fits(self, owner: Hashable, count: int) -> bool:
        free = self._limit - self._taken.total()
        most = free if self._each is None else min(free, self._each)
        return self._taken[owner] + min(count, self._limit // 2) <= most
