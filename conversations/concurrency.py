"""Threads of the core: vital ones, batching ones, timed calls, answers that are kept for a while."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

NEVER = float("-inf")  # on the monotonic clock

Answer = TypeVar("Answer")
Load = TypeVar("Load")


def vital_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread without which its process must not go on.

    If ``target`` raises, the process ends, and the supervisor starts another. Without the thread,
    this one would keep the lanes that it holds for ever. If ``target`` returns, nothing happens.
    """

    def run() -> None:
        try:
            target()
        except BaseException as error:
            log.critical("vital thread died", thread=name, error=type(error).__name__, exc_info=True)
            end_process()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def end_process() -> None:
    """End this process at once, without cleaning up."""
    os._exit(70)


class Stage(Generic[Load]):
    """A batching thread, vital: one round trip for many; meanwhile the next batch gathers.

    ``work`` gets what was ``put``, in that order, at most ``most`` at a time.
    """

    def __init__(self, name: str, work: Callable[[list[Load]], None], most: int) -> None:
        self._work, self._most = work, most
        self._waiting: queue.SimpleQueue[Load] = queue.SimpleQueue()
        vital_thread(name, self._serve)

    def put(self, loads: Iterable[Load]) -> None:
        for load in loads:
            self._waiting.put(load)

    def _serve(self) -> None:
        while True:
            self._work(self._gather())

    def _gather(self) -> list[Load]:
        loads = [self._waiting.get()]
        while len(loads) < self._most:
            try:
                loads.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return loads


class Timer:
    """One vital thread that calls functions when their time comes, in the order of their times.

    Functions must be short, since the later ones wait for them. What one raises is logged.
    """

    def __init__(self, name: str) -> None:
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._tie = itertools.count()  # calls of the same time come in the order of their requests
        self._changed = threading.Condition()
        vital_thread(name, self._run)

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._calls)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        call = (time.monotonic() + seconds, next(self._tie), function)
        with self._changed:
            heapq.heappush(self._calls, call)
            if self._calls[0] is call:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            function = self._next()
            try:
                function()
            except Exception as error:  # nobody waits for it, and the others have their times
                log.error("a timed call failed", error=type(error).__name__, exc_info=True)
            del function  # what it refers to must not live until the next call

    def _next(self) -> Callable[[], object]:
        with self._changed:
            while not self._calls or self._calls[0][0] > time.monotonic():
                self._changed.wait(self._calls[0][0] - time.monotonic() if self._calls else None)
            return heapq.heappop(self._calls)[2]


class Fresh(Generic[Answer]):
    """Calls give the last answer of ``ask``, which is asked again when that is ``seconds`` old.

    One thread asks; meanwhile the others go on with the last answer. Only for the first one do
    they wait. ``ask`` gets the last answer (``first``, if there is none), to return it where it
    finds no other. What it raises goes to its caller, and the next caller asks again.
    """

    def __init__(self, ask: Callable[[Answer], Answer], seconds: float, first: Answer) -> None:
        self._ask, self._seconds, self._first = ask, seconds, first
        self._asking = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """As if nobody had asked yet."""
        self._last, self._until = self._first, NEVER

    def change(self, function: Callable[[Answer], Answer]) -> None:
        """Replace the last answer by what ``function`` makes of it, after an ask that runs."""
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
