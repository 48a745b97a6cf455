"""Many callers, one transaction. Shared by the three streams: store, handle, deliver.

One thread owns one connection. It takes whatever is ready, without lingering, and writes it as one
batch; while that runs, the next batch forms by itself. A batch that fails is redone item by item, in
its order, by the same statements.

**Invariant:** an item that has to wait holds back the later ones of its lane.
"""

from __future__ import annotations

import collections
import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import psycopg
import structlog

from conversations import database
from conversations.errors import Busy, NotStored, UnsafeDatabase

log = structlog.get_logger(__name__)

BATCH = 256
QUEUED_ITEMS = 5_000
QUEUED_BYTES = 128 * 1024 * 1024
RECONNECT_SECONDS = 0.2
BUSY_SECONDS = 0.005  # before a lane that somebody else holds is tried again

AGAIN = object()  # a stream's result for an item whose lane somebody else holds


class Stream(Protocol):
    """One kind of write. ``patient`` items stay in memory until they are written; others have a deadline."""

    name: str
    patient: bool

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Any]) -> Sequence[Any]:
        """Write ``items`` in one transaction; a result per item, ``AGAIN`` where its lane is held."""
        ...

    def lane(self, item: Any) -> Hashable:
        """What must stay in order."""
        ...

    def mend(self, item: Any, error: psycopg.Error) -> Any | None:
        """What to write instead of an item that the database refuses alone; None: nothing."""
        ...


class Ticket:
    """One submitted item. ``done(ticket)`` is called once, in the committer's thread."""

    __slots__ = ("deadline", "done", "error", "item", "result", "size", "stream", "tries")

    def __init__(self, stream: Stream, item: Any, done: Callable[[Ticket], None], deadline: float, size: int) -> None:
        self.stream, self.item, self.done, self.deadline, self.size = stream, item, done, deadline, size
        self.result: Any = None
        self.error: Exception | None = None
        self.tries = 0


class Committer:
    """The one writer of a process (or of one of its roles). If its thread dies, the process ends."""

    def __init__(self, name: str, after_batch: Callable[[list[Ticket]], None] = lambda tickets: None) -> None:
        self.name = name
        self._after_batch = after_batch
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._ready: collections.OrderedDict[str, collections.deque[Ticket]] = collections.OrderedDict()
        self._connection: psycopg.Connection[Any] | None = None
        self._queued_items = 0
        self._queued_bytes = 0
        self._counting = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ callers

    def submit(
        self, stream: Stream, item: Any, done: Callable[[Ticket], None], *, deadline: float = float("inf"), size: int = 0
    ) -> None:
        """Queue ``item``. Raises ``Busy`` when an impatient stream would overfill the queue."""
        with self._counting:
            full = self._queued_items >= QUEUED_ITEMS or self._queued_bytes + size > QUEUED_BYTES
            if full and not stream.patient:
                raise Busy(f"{self._queued_items} items wait to be stored")
            self._queued_items += 1
            self._queued_bytes += size
        self._queue.put(Ticket(stream, item, done, deadline, size))

    def write(self, stream: Stream, item: Any, timeout: float = 10.0) -> Any:
        """Queue ``item`` and wait for its result. Raises what its writing raised, or ``NotStored`` after ``timeout``."""
        written = threading.Event()
        kept: list[Ticket] = []

        def done(ticket: Ticket) -> None:
            kept.append(ticket)
            written.set()

        self.submit(stream, item, done, deadline=time.monotonic() + timeout)
        if not written.wait(timeout + 1):
            raise NotStored("no answer from the database in time")
        if kept[0].error is not None:
            raise kept[0].error
        return kept[0].result

    def stop(self, timeout: float = 5.0) -> None:
        """Write what is queued, then end."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not (self._stopping and not self._ready and self._queue.empty()):
                self._collect()
                tickets = self._next_batch()
                if tickets:
                    self._finish(self._write_batch(tickets))
            if self._connection is not None:
                self._connection.close()
        except BaseException as error:
            log.critical("committer died", committer=self.name, error=type(error).__name__, exc_info=True)
            end_process()

    def _collect(self) -> None:
        """Wait for something to do, then take all that is there."""
        block = not self._ready
        while True:
            try:
                ticket = self._queue.get(block)
            except queue.Empty:
                return
            block = False
            if ticket is not None:
                self._ready.setdefault(ticket.stream.name, collections.deque()).append(ticket)
            elif not self._ready:
                return

    def _next_batch(self) -> list[Ticket]:
        """Up to ``BATCH`` tickets of the stream that waited longest."""
        if not self._ready:
            return []
        name, waiting = self._ready.popitem(last=False)
        tickets = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        if waiting:
            self._ready[name] = waiting
        return [ticket for ticket in tickets if not self._expired(ticket)]

    def _expired(self, ticket: Ticket) -> bool:
        if time.monotonic() < ticket.deadline:
            return False
        ticket.error = ticket.error or NotStored("its lane was held, or the database was away, until the deadline")
        self._finish([ticket])
        return True

    def _write_batch(self, tickets: list[Ticket]) -> list[Ticket]:
        """Write one batch; the tickets that are done."""
        try:
            results = self._write(tickets)
        except UnsafeDatabase as error:
            log.critical("this database must not be used", committer=self.name, why=str(error))
            return self._away(tickets, error)
        except psycopg.Error as error:
            if self._lost():
                return self._away(tickets, error)
            log.warning("batch failed", committer=self.name, stream=tickets[0].stream.name, items=len(tickets),
                        error=type(error).__name__, sqlstate=error.sqlstate)  # fmt: skip
            return self._one_by_one(tickets)
        return self._settle(tickets, results)

    def _one_by_one(self, tickets: list[Ticket]) -> list[Ticket]:
        done: list[Ticket] = []
        held: set[Hashable] = set()
        back: list[Ticket] = []
        for ticket in tickets:
            lane = ticket.stream.lane(ticket.item)
            if lane in held or not self._write_alone(ticket):
                held.add(lane)
                back.append(ticket)
            else:
                done.append(ticket)
        self._put_back(back)
        return done

    def _write_alone(self, ticket: Ticket) -> bool:
        """True when the ticket is done, well or not; False when it has to wait."""
        try:
            result = self._write([ticket])[0]
        except psycopg.Error as error:
            return self._refused(ticket, error)
        ticket.result = result
        return result is not AGAIN

    def _refused(self, ticket: Ticket, error: psycopg.Error) -> bool:
        """The database refused one item alone: bad data is mended, anything else is tried again or answered 503."""
        ticket.tries += 1
        if (error.sqlstate or "")[:2] in ("22", "23") and not self._lost():
            if error.sqlstate == "23505" and ticket.tries == 1:
                return self._write_alone(ticket)
            mended = ticket.stream.mend(ticket.item, error)
            if mended is not None and ticket.tries < 4:
                ticket.item = mended
                return self._write_alone(ticket)
            ticket.error = error
            return True
        if ticket.stream.patient:
            time.sleep(RECONNECT_SECONDS)
            return False
        ticket.error = NotStored(type(error).__name__)
        return True

    def _write(self, tickets: list[Ticket]) -> Sequence[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self.name)
        return tickets[0].stream.write(self._connection, [ticket.item for ticket in tickets])

    def _settle(self, tickets: list[Ticket], results: Sequence[Any]) -> list[Ticket]:
        done, back = [], []
        for ticket, result in zip(tickets, results, strict=True):
            ticket.result = result
            (back if result is AGAIN else done).append(ticket)
        self._put_back(back)
        return done

    def _put_back(self, tickets: list[Ticket]) -> None:
        """To the front, in order; they ride in the next batch."""
        if tickets:
            if self._queue.empty():
                time.sleep(BUSY_SECONDS)
            waiting = self._ready.setdefault(tickets[0].stream.name, collections.deque())
            waiting.extendleft(reversed(tickets))

    def _lost(self) -> bool:
        return self._connection is None or self._connection.closed or self._connection.broken

    def _away(self, tickets: list[Ticket], error: Exception) -> list[Ticket]:
        """The database is away: patient items wait for it, others are answered now."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if tickets[0].stream.patient:
            time.sleep(RECONNECT_SECONDS)
            self._put_back(tickets)
            return []
        for ticket in tickets:
            ticket.error = NotStored(type(error).__name__)
        return tickets

    def _finish(self, tickets: Iterable[Ticket]) -> None:
        finished = list(tickets)
        with self._counting:
            self._queued_items -= len(finished)
            self._queued_bytes -= sum(ticket.size for ticket in finished)
        for ticket in finished:
            ticket.done(ticket)
        if finished:
            self._after_batch(finished)


class Statements:
    """Single statements, each in a transaction of its own, for processes that read through their committer."""

    name = "statements"
    patient = False

    def lane(self, item: tuple[str, Any]) -> Hashable:
        return id(item)

    def mend(self, item: tuple[str, Any], error: psycopg.Error) -> Any | None:
        return None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[tuple[str, Any]]) -> Sequence[Any]:
        """A result list per item. A statement that fails alone raises to its caller."""
        results = []
        for query, params in items:
            cursor = connection.execute(query, params or None, prepare=bool(params))
            results.append(cursor.fetchall() if cursor.description else [])
        return results


STATEMENTS = Statements()


def reader(committer: Committer) -> Callable[[str, Any], list[Any]]:
    """What ``database.read_through`` wants: reads ride with the committer's batches."""

    def run(query: str, params: Any) -> list[Any]:
        return list(committer.write(STATEMENTS, (query, params), timeout=3.0))

    return run


def as_json(value: Any) -> str:
    """What a statement reads with json_to_recordset."""
    return msgspec.json.encode(value).decode()


def end_process() -> None:
    """A process that lost one of its threads must not go on half alive: its supervisor starts another."""
    os._exit(70)
