"""Renders and writes log lines in a thread of its own, so that nobody waits for them.

A caller only queues an event. When nobody reads the output the queue fills up; further lines are
dropped and counted, and the work goes on.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import structlog

from conversations.telemetry.log_privacy import Event

# Most lines that wait while nobody reads the output. Larger: more memory; smaller: a shorter stall
# of the reader already loses lines.
WAITING_LINES = 5_000
# Most characters of a line; the rest is cut off. Larger: lines that are being written take more
# memory; smaller: deep tracebacks are cut.
LINE_CHARACTERS = 8_000
# Most lines written at once. Larger: more memory; smaller: more system calls.
LINES_AT_ONCE = 100
# Seconds that a line waits for others, so that the thread wakes once for all of them. Larger: lines
# appear later, and a killed process loses more of them; smaller: each line costs a wake-up.
PAUSE_SECONDS = 0.05
# Longest wait, in seconds, for the last lines to be written when the process ends. Longer: with a
# blocked output it ends later; shorter: a slow reader loses the last lines.
EXIT_SECONDS = 1.0


class LogWriter:
    """The thread that writes lines to ``stream``; ``dropped`` counts lost lines.

    ``render`` makes the text of an event, in that thread.
    """

    def __init__(self, render: Callable[[Event], str], stream: TextIO) -> None:
        self.dropped = 0
        self.stream = stream
        self._render = render
        self._reported = 0
        self._start()
        os.register_at_fork(after_in_child=self._start)  # a fork has none of its parent's threads
        atexit.register(self.drain, EXIT_SECONDS)

    def hand_over(self, logger: Any, method: str, event: Event) -> Event:
        """Queue an event. The last processor of structlog: raises ``DropEvent``."""
        self.put(event)
        if method == "critical":  # the process is about to end itself
            self.drain(EXIT_SECONDS)
        raise structlog.DropEvent

    def put(self, event: Event) -> None:
        """Queue an event, or drop and count it if ``WAITING_LINES`` wait."""
        # Not a bounded queue.Queue: its lock costs more than all else here, and a signal handler or
        # a __del__ that logs while it is held would wait for itself. Threads may exceed the bound
        # by a few lines.
        if self._queue.qsize() < WAITING_LINES:
            self._queue.put(event)
        else:
            self.dropped += 1

    def drain(self, seconds: float) -> None:
        """Wait until the lines logged so far are written, for ``seconds`` at most."""
        done = threading.Event()
        self._hurry.set()  # first: whoever answers clears it
        self._queue.put(done)
        done.wait(seconds)

    def _start(self) -> None:
        """Start the thread with an empty queue, here and in each forked child."""
        self._queue: queue.SimpleQueue[Event | threading.Event] = queue.SimpleQueue()
        self._hurry = threading.Event()  # set: do not wait for more lines
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if self._queue.qsize() < LINES_AT_ONCE:
                self._hurry.wait(PAUSE_SECONDS)
            more = min(self._queue.qsize(), LINES_AT_ONCE - 1)
            items = [first, *(self._queue.get() for _ in range(more))]
            self._write([item for item in items if not isinstance(item, threading.Event)])
            for item in items:
                if isinstance(item, threading.Event):
                    self._hurry.clear()
                    item.set()

    def _write(self, events: Sequence[Event]) -> None:
        lines = list(filter(None, map(self._line, events)))
        if self.dropped > self._reported:
            self._reported = self.dropped
            lines.append(f'{{"event":"log lines dropped","level":"warning","lines":{self.dropped}}}\n')
        try:
            self.stream.write("".join(lines))
            self.stream.flush()
        except (OSError, ValueError):  # a closed pipe must not end this thread
            self.dropped += len(lines)

    def _line(self, event: Event) -> str:
        try:
            return self._render(event)[:LINE_CHARACTERS] + "\n"
        except Exception:  # nothing that is logged may end this thread
            self.dropped += 1
            return ""
