"""Runs turns on threads, on the event loop or in processes of their own, and limits their time.

**Invariant:** a turn's result counts only while ``TurnRunner`` lists the turn. Whoever strikes it
off the list, because it ended or is given up, reports how it ended; nobody else does.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from django.conf import settings

from conversations import turns
from conversations.acts import acknowledgements
from conversations.concurrency import vital_thread
from conversations.handling import isolated_turn
from conversations.handling.async_turns import Holder, enter, event_loop
from conversations.handling.backpressure import Backpressure
from conversations.handling.held import Turn
from conversations.handling.turn_threads import TurnThreads
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Threads that judge the results of async turns. Larger: a burst of ends is written sooner; smaller:
# fewer threads.
FINISHERS = 4
# Seconds of a turn after which the person sees that we type; ``_watch`` looks once a second. Larger:
# people wait longer without a sign; smaller: calls for turns that end at once.
TYPING_SECONDS = 1.0


class TurnRunner:
    """Runs the turns of a process. It owns their pools, the event loop and the time limit.

    ``may_begin`` says whether a turn on a lane may begin now. ``report`` gets each turn once, with
    its output, or with None if it did not run. It is called on the turn's thread, or the watcher's.
    """

    def __init__(
        self,
        backpressure: Backpressure,
        may_begin: Callable[[int], bool],
        report: Callable[[Turn, turns.Output | None], None],
    ) -> None:
        self.overdue = threading.Event()  # a turn took too long: replace this process
        self._backpressure, self._may_begin, self._report = backpressure, may_begin, report
        self._threads = TurnThreads(settings.TURN_THREADS, "turn")
        # The event loop's own pool would not do: bots may fill it.
        self._finishers = ThreadPoolExecutor(FINISHERS, thread_name_prefix="finish")
        self._isolated = ThreadPoolExecutor(isolated_turn.AT_ONCE, thread_name_prefix="isolated")
        self._turns: set[Turn] = set()  # the list: turns that wait or run
        self._lock = threading.Lock()
        vital_thread("overdue", self._watch)

    def begin(self, turn: Turn, task: turns.Task, function: Callable[..., Any]) -> None:
        """Run a turn: a suspect's in a process of its own, else on the event loop or a thread.

        A suspect's lane was in hand when a worker died. Only a crash there is a failed attempt: the
        worker's death may have had another cause.
        """
        is_suspect = turn.head.suspect
        turn.on_loop = not is_suspect and inspect.iscoroutinefunction(function)
        with self._lock:
            self._turns.add(turn)
        mark = self._backpressure.mark_busy if is_suspect else self._backpressure.mark_queued
        mark(turn.held.id)
        try:
            if is_suspect:
                self._isolated.submit(self._run_isolated, turn, task)
            elif turn.on_loop:
                event_loop().start(self._run_async(turn, task, function))
            else:
                self._threads.submit(self._run, turn, task, function)
        except BaseException:  # the system allows no more threads: the caller releases the lane
            self._strike([turn])
            raise

    # ------------------------------------------------------------ three ways to run

    def _run(self, turn: Turn, task: turns.Task, function: Callable[..., Any]) -> None:
        """Run a plain function's turn, on a thread of the pool."""
        if self._start(turn, settings.TURN_SECONDS):
            self._end(turn, turns.run(function, task))

    async def _run_async(self, turn: Turn, task: turns.Task, function: Callable[..., Any]) -> None:
        """Run an async turn on the event loop.

        What follows may read the database, which would block the loop: a thread does it.
        """
        enter(turn)
        async with event_loop().slots:
            if not self._start(turn, settings.TURN_SECONDS):
                return
            output = await turns.run_async(function, task)
        await asyncio.get_running_loop().run_in_executor(self._finishers, self._end, turn, output)

    def _run_isolated(self, turn: Turn, task: turns.Task) -> None:
        """Run a turn in a child process, which limits its time."""
        if not self._start(turn, math.inf):
            return
        try:
            output = isolated_turn.run(task)
        except Exception as error:  # no process could start: not this message's failure
            log.warning("isolated turn not begun", conversation=turn.held.id, error=error_places.kind(error))
            output = None
        self._end(turn, output)

    # ------------------------------------------------------------ the list

    def _start(self, turn: Turn, seconds: float) -> bool:
        """Let a turn begin, on its thread: it may take ``seconds``.

        Return False if it must not: much may have changed while it waited. Then its lane is woken,
        so that another process runs it.
        """
        with self._lock:
            if turn not in self._turns:
                return False
            if self._may_begin(turn.held.id):
                turn.began = time.monotonic()
                turn.deadline = turn.began + seconds
                turn.typing_at = turn.began + TYPING_SECONDS
                self._backpressure.mark_busy(turn.held.id)
                return True
        self._give_back([turn])
        return False

    def _end(self, turn: Turn, output: turns.Output | None) -> None:
        """Report how a turn ended, unless it was given up before."""
        if self._strike([turn]):
            self._report(turn, output)

    def _give_back(self, given: list[Turn]) -> None:
        """Report turns that did not run, or whose result is void. Another process runs them."""
        for turn in self._strike(given):
            turn.held.wakes = turn.head.tenant_id
            self._report(turn, None)

    def _strike(self, ended: list[Turn]) -> list[Turn]:
        """Strike turns off the list. Return those that were on it: the caller must report them."""
        with self._lock:
            struck = [turn for turn in ended if turn in self._turns]
            self._turns.difference_update(struck)
            for turn in struck:
                self._backpressure.mark_idle(turn.held.id)
        return struck

    # ------------------------------------------------------------ turns that take long

    def _watch(self) -> None:
        """Fail turns that exceed ``TURN_SECONDS``. Show people whose turns take long that we type.

        After a failure this process finishes its other turns and is replaced. While the event loop
        does not answer, the time of its turns stands still, but for the one that holds it.
        """
        tick = min(1.0, settings.TURN_SECONDS / 4)
        while True:
            time.sleep(tick)
            silence = event_loop().silence() if self._on_loop() else 0.0
            holder = event_loop().holder() if silence else None
            late = self._fail_late(holder, tick)
            if holder and (silence > settings.TURN_SECONDS or holder.turn in late):
                self._leave_loop(holder)
            self._show_typing()

    def _show_typing(self) -> None:
        """Show "typing" for turns for which it is time. Each call runs elsewhere and may fail."""
        with self._lock:
            slow = [turn for turn in self._turns if turn.typing_at <= time.monotonic()]
            for turn in slow:
                turn.typing_at = math.inf  # until the call says for how long it is shown
        for turn in slow:
            if not acknowledgements.show_typing(turn, functools.partial(self._turns.__contains__, turn)):
                turn.typing_at = 0.0  # too many calls wait: at the next look

    def _on_loop(self) -> list[Turn]:
        """Return the turns on the event loop, also those that wait for a slot."""
        with self._lock:
            return [turn for turn in self._turns if turn.on_loop]

    def _fail_late(self, holder: Holder | None, tick: float) -> list[Turn]:
        """Report turns that took too long as failed, and return them.

        Their threads cannot be stopped, so this process is to be replaced (``overdue``). The next
        attempt runs in a process of its own, so that it costs no second replacement.
        """
        with self._lock:
            for turn in self._turns:
                if holder and turn.on_loop and turn is not holder.turn:
                    turn.deadline += tick
            late = [turn for turn in self._turns if turn.deadline < time.monotonic()]
        late = self._strike(late)
        for turn in late:
            self.overdue.set()
            turn.overdue = True
            place = holder.place if holder and holder.turn is turn else turn.channel.bot
            error = turns.Output(error_type="TurnTooLong", error_place=place,
                                 error_text=f"the turn took longer than {settings.TURN_SECONDS:g} s")  # fmt: skip
            self._report(turn, error)
        return late

    def _leave_loop(self, holder: Holder) -> None:
        """Give up the turns on a loop that does not answer: no attempt, and other processes run them."""
        self.overdue.set()  # nothing can end what blocks the loop's thread
        waiting = self._on_loop()
        log.error("the event loop does not answer", place=holder.place, turns=len(waiting))
        self._give_back(waiting)
