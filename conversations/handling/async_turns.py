"""The event loop on which all ``async def`` bots of a process run, and who holds it up.

A bot that blocks it (``time.sleep``, ``requests``) stops all turns on it. Only that one is to
blame, so this module finds out whose code the loop runs while it does not answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections.abc import Coroutine
from types import FrameType
from typing import Any, NamedTuple

from conversations import runtime
from conversations.concurrency import vital_thread
from conversations.telemetry import error_places

# Async turns that run at once on the event loop; others wait, and with them the tasks that brought
# their lanes. Larger: more bots wait at once for slow services, with more memory; smaller: they
# wait for each other.
ASYNC_TURNS = 1_000

# What the turn is, in each task and callback that a turn began: they inherit the context.
current: contextvars.ContextVar[object] = contextvars.ContextVar("turn")
# The task that runs the turn, in the same places.
_main: contextvars.ContextVar[asyncio.Task[Any]] = contextvars.ContextVar("main")


class TurnTask(asyncio.Task[Any]):
    """A task that no other turn can cancel while its own runs. Some bots cancel all, to stop cleanly."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = _main.get(None)  # the task of the turn that began this one

    def cancel(self, msg: Any = None) -> bool:
        main = self._turns or self
        return (main.done() or _main.get(main) is main) and super().cancel(msg)


def enter(turn: object) -> None:
    """Note that the running task runs ``turn``. Whatever it begins belongs to it."""
    current.set(turn)
    task = asyncio.current_task()
    assert task is not None
    _main.set(task)


class Holder(NamedTuple):
    """Whose code the loop runs: ``current`` of that turn (None: of no turn), and the line."""

    turn: object
    place: str


class EventLoop:
    """One loop in a thread of its own. ``silence`` is asked by one thread only."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(lambda loop, coroutine, **options: TurnTask(coroutine, loop=loop, **options))
        self.slots = asyncio.Semaphore(ASYNC_TURNS)
        self._asked_at = 0.0  # monotonic time of a question that the loop has not answered; 0: none
        self._thread = vital_thread("async-turns", self._run)

    def _run(self) -> None:
        """Run the loop. Raises what a bot's task raised to end it, and if a bot stopped it."""
        self._loop.run_forever()
        raise RuntimeError("a bot stopped the event loop")

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop, from another thread."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def silence(self) -> float:
        """Return for how many seconds the loop has not answered; 0.0 if it has. Ask it again."""
        if self._asked_at:
            return time.monotonic() - self._asked_at
        self._asked_at = time.monotonic()
        self._loop.call_soon_threadsafe(self._answer)
        return 0.0

    def _answer(self) -> None:
        self._asked_at = 0.0

    def holder(self) -> Holder:
        """Return whose code the loop runs now, also that of a task or callback that outlives it.

        A callback runs in ``Handle._run``, whose context says which turn began it.
        """
        frame: FrameType | None = sys._current_frames().get(self._thread.ident or 0)
        place = error_places.place_of(frame) if frame else ""
        while frame is not None and frame.f_code is not asyncio.Handle._run.__code__:
            frame = frame.f_back
        handle = frame.f_locals["self"] if frame else None  # asyncio sets it to None when the callback is over
        return Holder(handle._context.get(current) if handle else None, place)


event_loop = runtime.kept(EventLoop)  # the process's event loop for bots; the first call starts it
