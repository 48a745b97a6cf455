"""How the core's threads run, what they wait for, and what their death means."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

Load = TypeVar("Load")


def vital_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread without which its process must not go on: if ``target`` raises, the process ends.

    The supervisor starts another process, whereas half a process would keep what it has in hand for ever.
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
    """A vital thread that does a round trip for many at once; during one trip, the next load gathers.

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
