"""A stage: one thread that takes a trip for many at once. While it is on its way, the next load gathers by itself."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import structlog

from conversations.postgres import committer

log = structlog.get_logger(__name__)

Load = TypeVar("Load")


class Stage(Generic[Load]):
    """``work`` gets what came, in its order, ``most`` at a time. If it raises, the process ends."""

    def __init__(self, name: str, work: Callable[[list[Load]], None], most: int) -> None:
        self._name, self._work, self._most = name, work, most
        self._waiting: queue.SimpleQueue[Load] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def put(self, loads: Iterable[Load]) -> None:
        for load in loads:
            self._waiting.put(load)

    def _serve(self) -> None:
        try:
            while True:
                self._work(self._gather())
        except BaseException as error:
            log.critical("stage died", stage=self._name, error=type(error).__name__, exc_info=True)
            committer.end_process()

    def _gather(self) -> list[Load]:
        loads = [self._waiting.get()]
        while len(loads) < self._most:
            try:
                loads.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return loads
