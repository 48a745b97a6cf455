"""What a process has one of: its writer, its reader, its Redis client, and what its modules remember.

Web processes, workers, commands and tests use the same class. Whatever connects or starts a thread
is made at its first use, and so after any fork. ``current`` is the only module global; a test
replaces all of it with ``begin``.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from conversations.concurrency import Timer
from conversations.postgres import database, reads
from conversations.postgres.committer import Committer
from conversations.postgres.database import Params, Row, Statement

# Seconds that ``close`` waits for the writer's last batch. Larger: a test ends later when its
# database is away. Smaller: what was queued may not be written.
CLOSE_SECONDS = 0.5

Part = TypeVar("Part")


class Runtime:
    """What this process has one of. Constructors get their parts from here."""

    def __init__(self) -> None:
        self.writer: Committer | None = None
        self.reader = database.Reader("reader")
        self._reads_through_writer = False
        self.parts: dict[Callable[[], Any], Any] = {}  # by the function that ``kept`` returned for each
        self._making = threading.RLock()  # a part that is made may need another

    def start_writer(self, name: str, *, reads: bool, **options: Any) -> Committer:
        """Return the process's one committer; start it with ``options``, if there is none.

        ``reads``: the process reads through it, too, and needs no second connection.
        """
        with self._making:
            if self.writer is None:
                self.writer = Committer(name, **options)
                self._reads_through_writer = reads
            return self.writer

    def run(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Run each statement in its own transaction, in order, in one round trip.

        Return the rows of each. Raises the first error.
        """
        if self._reads_through_writer and self.writer is not None:
            return reads.read(self.writer, statements)
        return self.reader.read(statements)

    def refuse_if_silent(self) -> None:
        """Raise ``NotStored`` while another thread waits for a database that does not answer.

        A process with a connection for reads has nothing to refuse.
        """
        if self._reads_through_writer and self.writer is not None:
            self.writer.refuse_if_silent()

    def make(self, key: Callable[[], Part], make: Callable[[], Part]) -> Part:
        """Make the part of ``key`` and return it, or the one that another thread has made meanwhile."""
        with self._making:
            if key not in self.parts:
                self.parts[key] = make()
            part: Part = self.parts[key]
            return part

    def close(self) -> None:
        """Stop the timer and the writer, and close the connections."""
        if timing := self.parts.get(timer):
            timing.stop()
        if self.writer is not None:
            self.writer.stop(CLOSE_SECONDS)
        self.reader.close()


_current = Runtime()


def current() -> Runtime:
    """Return the runtime of this process."""
    return _current


def begin() -> None:
    """Close the current runtime and begin another one: what it makes follows the settings of now."""
    before = _current
    _begin()
    before.close()


def _begin() -> None:
    global _current
    _current = Runtime()


os.register_at_fork(after_in_child=_begin)  # a child has no thread of its parent, and shares no connection


def kept(make: Callable[[], Part]) -> Callable[[], Part]:
    """Decorate a function without arguments: a process calls it once and keeps what it returns.

    It must not wait for Postgres or Redis: other threads wait for it, maybe the one that would answer.
    """

    @functools.wraps(make)
    def part() -> Part:
        try:
            found: Part = _current.parts[part]
            return found
        except KeyError:
            return _current.make(part, make)

    return part


@kept
def timer() -> Timer:
    """Return the process's timer, for calls that no message waits for."""
    return Timer("timer")


def read(query: str, params: Params = ()) -> list[Row]:
    """Run one statement that reads. Return its rows. Raises ``psycopg.Error``."""
    return _current.run([(query, params)])[0]


def execute(query: str, params: Params = ()) -> list[Row]:
    """Run one statement that writes, in its own transaction. Raises ``psycopg.Error``."""
    return _current.run([(query, params)])[0]


def execute_all(statements: Sequence[Statement]) -> list[list[Row]]:
    """Run each statement in its own transaction, in one round trip: ``Runtime.run``."""
    return _current.run(statements)
