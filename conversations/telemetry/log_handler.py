"""Writes log lines without ever making the caller wait.

The standard library's ``QueueHandler`` and ``QueueListener``: the caller's thread formats and
queues a line, another thread writes it. When nobody reads the output the queue fills up; further
lines are dropped and counted, and the work goes on.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from logging.handlers import QueueHandler, QueueListener
from typing import Any, TextIO

# Most lines that wait while nobody reads the output. Larger: more memory; smaller: a shorter stall
# of the reader already loses lines.
WAITING_LINES = 5_000
# Most characters of a line; the rest is cut off. Larger: waiting lines take more memory; smaller:
# deep tracebacks are cut.
LINE_CHARACTERS = 8_000
# Longest wait, in seconds, for the last lines to be written when the process ends. Longer: with a
# blocked output it ends later; shorter: a slow reader loses the last lines.
EXIT_SECONDS = 1.0


class PatientHandler(QueueHandler):
    """Queues lines for a thread that writes them to ``stream``; ``dropped`` counts lost lines."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(queue.SimpleQueue())
        self.dropped = 0
        self._stream = stream
        self._start()
        os.register_at_fork(after_in_child=self._start)  # a fork has none of its parent's threads
        atexit.register(self.drain, EXIT_SECONDS)

    def prepare(self, record: logging.LogRecord) -> Any:
        """Format in the caller's thread: the exception and the context variables are there."""
        return self.format(record)[:LINE_CHARACTERS]

    def enqueue(self, line: Any) -> None:
        """Queue a line, or drop and count it if ``WAITING_LINES`` wait."""
        # Not a bounded queue.Queue: its lock costs more than all else here, and a signal handler or
        # a __del__ that logs while it is held would wait for itself. Threads may exceed the bound
        # by a few lines.
        if self.queue.qsize() < WAITING_LINES:  # type: ignore[attr-defined]
            self.queue.put_nowait(line)
        else:
            self.dropped += 1

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a record that cannot be formatted: a log call must not raise in its caller."""
        self.dropped += 1

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.levelno >= logging.CRITICAL:  # the process is about to end itself
            self.drain(EXIT_SECONDS)

    def drain(self, seconds: float) -> None:
        """Wait until the lines logged so far are written, for ``seconds`` at most."""
        done = threading.Event()
        self.queue.put_nowait(done)
        done.wait(seconds)

    def _start(self) -> None:
        """Start the writing thread with an empty queue, here and in each forked child."""
        self.queue = queue.SimpleQueue()
        self._writer = Writer(self, self._stream)
        self._writer.start()


class Writer(QueueListener):
    """The thread that writes a handler's lines; after a loss also how many were dropped in all."""

    def __init__(self, handler: PatientHandler, stream: TextIO) -> None:
        super().__init__(handler.queue)
        self.stream = stream
        self._handler = handler
        self._reported = 0

    def handle(self, record: Any) -> None:
        """Write one line, or tell ``drain`` that all lines before it are written."""
        if isinstance(record, threading.Event):
            record.set()
            return
        if (dropped := self._handler.dropped) > self._reported:
            self._reported = dropped
            record += f'\n{{"event":"log lines dropped","level":"warning","lines":{dropped}}}'
        try:
            self.stream.write(record + "\n")
            self.stream.flush()
        except (OSError, ValueError):  # a closed pipe must not end this thread
            self._handler.dropped += 1
