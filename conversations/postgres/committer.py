"""Writes what many callers submit in few transactions. Storing, handling and delivering use it.

One thread owns one connection. It takes whatever waits and writes it as one batch; while that runs,
the next batch collects by itself. A batch that fails is written again item by item, in its order,
by the same statements.

**Invariant:** an item that waits holds back the later items of its lane.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import psycopg
import structlog

from conversations import processor
from conversations.concurrency import vital_thread
from conversations.errors import NotStored, UnsafeDatabase
from conversations.postgres import database
from conversations.postgres.backlog import BATCH, AnyTicket, Backlog
from conversations.postgres.liveness import LOCK_WAITS, Liveness
from conversations.postgres.remedies import Remedy, classify, is_too_large
from conversations.postgres.room import Room
from conversations.postgres.stream import LANE_LOCKED, Item, Result, Stream, Ticket

log = structlog.get_logger(__name__)

# Items of one request that are queued at once. Larger: fewer large requests fill the queue. Smaller:
# more batches, each with its linger: a full request of 10,000 items no longer ends before its deadline.
SLICE = 2 * BATCH
# Seconds until an item of a patient stream is tried again. Larger: slower recovery. Smaller: more
# attempts to connect in vain.
RECONNECT_SECONDS = 0.2
# Seconds that a batch waits for more items while the processor is short, at most, unless ``linger``
# says otherwise. Larger: each item is written later. Smaller: fewer items share a commit.
LINGER_SECONDS = 0.002
# Seconds until locked lanes are tried again when nothing else waits. Larger: their items wait
# longer after the lock is released. Smaller: more transactions in vain.
LOCKED_SECONDS = 0.005
# Seconds that a caller waits past its deadline for a batch that began before it. Larger: its
# request is answered later. Smaller: more callers get NotStored for an item that is stored.
ANSWER_SECONDS = 0.1
# Attempts to write one item alone before it fails. After a refusal, ``Stream.mend`` gives another
# version of it. Larger: a bad item delays the others for longer. Smaller: fewer versions are tried.
TRIES = 4

SILENCE = "the database does not answer"


class Committer:
    """The one writer of a process, or of one of its roles. If its thread dies, the process ends.

    ``after_batch(tickets)`` is called in its thread after the tickets' own ``done``.

    ``linger``: longest time in seconds that a batch waits for more items, see ``_collect``. Long for
    independent callers (web requests). Short for turns and replies: a lane comes back as soon as it
    is written, so each message pays the wait several times.
    """

    def __init__(
        self,
        name: str,
        after_batch: Callable[[list[AnyTicket]], None] = lambda tickets: None,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self.name = name
        self._after_batch = after_batch
        self._linger = linger
        self._queue: queue.SimpleQueue[AnyTicket | None] = queue.SimpleQueue()  # None: only wakes the thread
        self._backlog = Backlog()
        self._liveness = Liveness()
        self._connection: psycopg.Connection[Any] | None = None
        self._room = Room()
        self._stopping = False
        self._last_took = 0.0  # seconds
        self._thread = vital_thread(name, self._run)

    # ------------------------------------------------------------ callers

    def refuse_if_silent(self) -> None:
        """Raise ``NotStored`` while another caller waits for a database that does not answer."""
        if self._liveness.silent():
            raise NotStored(SILENCE)

    def submit(
        self,
        stream: Stream[Item, Result],
        items: Sequence[Item],
        done: Callable[[list[Ticket[Item, Result]]], None],
        *,
        deadline: float = float("inf"),
        size: int = 0,
        about: Any = None,
        goes_on: bool = False,
    ) -> list[Ticket[Item, Result]]:
        """Queue all ``items``. ``size``: bytes that their request keeps in memory.

        ``done`` is called when tickets are finished, see ``Ticket``. For a stream that is not
        patient, raises ``NotStored`` while another caller waits for a database that does not answer
        (so that not every thread of the process ends up waiting). Raises ``Busy`` when the owner
        holds its share, see ``Room``, except for reads and what ``goes_on`` with a request.
        """
        if not stream.patient:
            self.refuse_if_silent()
        failed_lanes: set[Hashable] = set()
        tickets = [
            Ticket(stream, item, done, deadline, 0 if place else size, failed_lanes, about)
            for place, item in enumerate(items)
        ]
        self._room.enter(tickets, may_refuse=not (stream.patient or stream.short or goes_on))
        for ticket in tickets:
            self._queue.put(ticket)
        return tickets

    def write(self, stream: Stream[Item, Result], item: Item, timeout: float = 10.0) -> Result:
        """Write ``item`` and return its result; see ``write_all``."""
        return self.write_all(stream, [item], timeout)[0]

    def write_all(
        self, stream: Stream[Item, Result], items: Sequence[Item], timeout: float = 10.0, size: int = 0
    ) -> list[Result]:
        """Write the items of one request and return their results, after COMMIT.

        A large request is queued slice by slice, the next one when the last is written: it takes no
        place that another caller needs, and its order is kept. ``size``: see ``submit``. Raises
        ``Busy``, the first error of an item, or ``NotStored`` after ``timeout`` seconds. Then later
        slices are not written; those before stay, and are duplicates when the request is repeated.
        """
        if threading.current_thread() is self._thread:  # a callback or a stream reads: no other thread would serve it
            return self._write_here(stream, items)
        deadline = time.monotonic() + timeout
        results: list[Result] = []
        for start in range(0, len(items), SLICE):
            results += self._write_slice(stream, items[start : start + SLICE], deadline, size, goes_on=start > 0)
        return results

    def _write_slice(
        self, stream: Stream[Item, Result], items: Sequence[Item], deadline: float, size: int, goes_on: bool
    ) -> list[Result]:
        """Queue ``items`` and wait until they are written, see ``write_all``."""
        waiting = threading.Lock()  # an Event would cost each request several times as much
        waiting.acquire()
        left = len(items)

        def done(tickets: list[Ticket[Item, Result]]) -> None:
            nonlocal left
            left -= len(tickets)
            if not left:
                waiting.release()

        tickets = self.submit(stream, items, done, deadline=deadline, size=size, goes_on=goes_on)
        if not waiting.acquire(timeout=max(0.0, deadline - time.monotonic()) + ANSWER_SECONDS):
            raise NotStored("no answer from the database in time")
        errors = [ticket.error for ticket in tickets if ticket.error is not None]
        if not errors:
            return [ticket.result for ticket in tickets]
        try:
            raise errors[0]
        finally:  # the traceback keeps this frame alive, and with it the request's bytes, until garbage is collected
            tickets.clear()
            errors.clear()
            del items

    def _write_here(self, stream: Stream[Item, Result], items: Sequence[Item]) -> list[Result]:
        """Write for a caller in the committer's own thread, which cannot wait for itself."""
        results: list[Result] = []
        for result in stream.write(self._open(), items):
            if result is LANE_LOCKED:
                raise NotStored("its lane is locked, and the committer's thread cannot wait for it")
            results.append(result)
        return results

    def stop(self, timeout: float = 5.0) -> None:
        """Let the thread write what is queued and end. Wait for it ``timeout`` seconds at most."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        """Write one batch after the other, until ``stop`` was called and nothing waits."""
        while not (self._stopping and not self._backlog and self._queue.empty()):
            self._collect()
            batch, failed = self._backlog.take(time.monotonic())
            self._answer(failed)
            if batch:
                self._liveness.begin()
                finished = self._write_batch(batch)
                self._last_took = self._liveness.end()
                self._answer(finished)
        if self._connection is not None:
            self._connection.close()

    def _collect(self) -> None:
        """Move all queued tickets into the backlog; block while there are none.

        While the processor is short, wait as long as the last batch took, so that more items share
        a commit.
        """
        if processor.is_short() and not self._backlog and not self._stopping:
            time.sleep(min(self._last_took, self._linger))
        block = not self._backlog
        while True:
            try:
                ticket = self._queue.get(block)
            except queue.Empty:
                return
            block = False
            if ticket is not None:
                self._backlog.put(ticket)
            elif not self._backlog:
                return

    def _write_batch(self, tickets: list[AnyTicket]) -> list[AnyTicket]:
        """Write one batch. Return the tickets that are finished and not yet answered."""
        try:
            results = self._write(tickets)
        except Exception as error:
            if isinstance(error, UnsafeDatabase):
                log.critical("this database must not be used", committer=self.name, why=str(error))
            if isinstance(error, psycopg.Error) and self._disconnected():
                return self._wait_for_database(tickets, error)
            log.warning("batch failed", committer=self.name, stream=tickets[0].stream.name, items=len(tickets),
                        error=type(error).__name__, sqlstate=getattr(error, "sqlstate", None))  # fmt: skip
            self._write_one_by_one(tickets)
            return []
        finished: list[AnyTicket] = []
        locked: list[AnyTicket] = []
        for ticket, result in zip(tickets, results, strict=True):
            (finished if ticket.takes(result) else locked).append(ticket)
        self._requeue(locked)
        return finished

    def _wait_for_database(self, tickets: list[AnyTicket], error: Exception) -> list[AnyTicket]:
        """Requeue patient tickets. Fail others, and return them."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if tickets[0].stream.patient:
            time.sleep(RECONNECT_SECONDS)
            self._requeue(tickets)
            return []
        for ticket in tickets:
            ticket.fail(NotStored(type(error).__name__))
        return tickets

    def _write_one_by_one(self, tickets: list[AnyTicket]) -> None:
        """Write the items of a failed batch alone, in order. Answer each, or requeue it."""
        patient = tickets[0].stream.patient
        waiting: list[AnyTicket] = []
        waiting_lanes: set[Hashable] = set()  # their later items must wait, too
        self._liveness.lock_waits = 0
        for index, ticket in enumerate(tickets):
            if patient and (self._disconnected() or self._liveness.lock_waits >= LOCK_WAITS):
                waiting.extend(tickets[index:])
                break
            if not patient and self._liveness.silent():  # a locked table: each item would wait for it
                ticket.fail(NotStored(SILENCE))
            elif ticket.wider_lane in waiting_lanes or not self._write_alone(ticket):
                waiting_lanes.add(ticket.wider_lane)
                waiting.append(ticket)
                continue
            self._answer([ticket])
        self._requeue(waiting)

    def _write_alone(self, ticket: AnyTicket) -> bool:
        """Return True if the ticket is finished, written or failed; False if it has to wait."""
        if ticket.fails(time.monotonic()):
            return True
        while True:
            try:
                return ticket.takes(self._write([ticket])[0])
            except Exception as error:
                remedy = self._apply_remedy(ticket, error)
            if remedy in (Remedy.WAIT, Remedy.FAIL):
                return remedy is Remedy.FAIL

    def _apply_remedy(self, ticket: AnyTicket, error: Exception) -> Remedy:
        """Do what ``classify`` says about an item that could not be written alone.

        Return the remedy; FAIL instead of MEND if the stream has nothing else to write.
        """
        ticket.waits_for_lane = False
        remedy = classify(error, ticket.stream, ticket.tries + 1, self._disconnected())
        ticket.tries += remedy is not Remedy.WAIT or is_too_large(error, ticket.stream)
        if remedy is Remedy.MEND:
            refusal = error if isinstance(error, psycopg.Error) else psycopg.DataError(type(error).__name__)
            mended = ticket.stream.mend(ticket.item, refusal) if ticket.tries < TRIES else None
            if mended is None:
                ticket.fail(error)
                return Remedy.FAIL
            ticket.item = mended
        elif remedy is not Remedy.RETRY:
            log.warning("item not written", committer=self.name, stream=ticket.stream.name,
                        error=type(error).__name__, sqlstate=getattr(error, "sqlstate", None))  # fmt: skip
            if remedy is Remedy.FAIL:
                ticket.fail(NotStored(type(error).__name__))
            elif not isinstance(error, psycopg.errors.LockNotAvailable):  # that one has waited: lock_timeout
                time.sleep(RECONNECT_SECONDS)
        return remedy

    def _write(self, tickets: list[AnyTicket]) -> Sequence[Any]:
        """Write tickets of one stream in one transaction; note whether the database answered."""
        stream = tickets[0].stream
        try:
            results = stream.write(self._open(), [ticket.item for ticket in tickets])
        except Exception as error:
            self._liveness.failed(stream, error, away=self._disconnected())
            raise
        self._liveness.succeeded(stream)
        return results

    def _open(self) -> psycopg.Connection[Any]:
        """Return the connection; connect first if there is none. Raises ``psycopg.Error``."""
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self.name)
        return self._connection

    def _disconnected(self) -> bool:
        return self._connection is None or self._connection.closed or self._connection.broken

    def _requeue(self, tickets: list[AnyTicket]) -> None:
        """Put ``tickets`` into the next batch of their stream; pause if nothing else waits."""
        if tickets:
            if self._queue.empty() and not self._backlog:
                time.sleep(LOCKED_SECONDS)
            self._backlog.requeue(tickets)

    def _answer(self, tickets: list[AnyTicket]) -> None:
        """Call ``done`` for finished tickets: once per caller, with all tickets of that caller."""
        if not tickets:
            return
        self._room.leave(tickets)
        by_callback: dict[Callable[[list[AnyTicket]], None], list[AnyTicket]] = {}
        for ticket in tickets:
            by_callback.setdefault(ticket.done, []).append(ticket)
        for done, finished in by_callback.items():
            done(finished)
        self._after_batch(tickets)
