"""Many callers, one transaction. Shared by the three streams: store, handle, deliver.

One thread owns one connection. It takes whatever is ready, without lingering when little is going on, and writes
it as one batch; while that runs, the next batch forms by itself. A batch that fails is redone item by item, in
its order, by the same statements.

**Invariant:** an item that has to wait holds back the later ones of its lane.
"""

from __future__ import annotations

import collections
import itertools
import queue
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any

import psycopg
import structlog

from conversations.concurrency import vital_thread
from conversations.errors import Busy, CoreError, NotStored, UnsafeDatabase
from conversations.postgres import database
from conversations.postgres.stream import LANE_LOCKED, Item, Result, Stream, Ticket

log = structlog.get_logger(__name__)

BATCH = 256
QUEUED_ITEMS = 5_000
QUEUED_BYTES = 128 * 1024 * 1024
RECONNECT_SECONDS = 0.2
CROWD = 3  # with so many a batch, the next one waits for more, as long as the last one took and ``linger`` at most
LINGER_SECONDS = 0.002
CROWDED = 16  # with so many of one line waiting, those of others go first, in a batch of their own; then all go
BUSY_SECONDS = 0.005  # before a lane that somebody else holds is tried again
SILENT_SECONDS = 2.0  # a batch that takes longer: the database does not answer now, and nobody else waits for it
BACK_SECONDS = 0.1  # the same while it is away, for the first batch that finds it again
BLOCKED = 2  # items in a row that wait for a lock in vain: it is not one row's
LAST_SECONDS = 0.1  # for the answer of a batch that began before the deadline

AnyTicket = Ticket[Any, Any]

SILENCE = "the database does not answer"


class Committer:
    """The one writer of a process (or of one of its roles). If its thread dies, the process ends.

    ``linger``: seconds that a batch waits for more at most, where many share one. Long where those who wait for it are
    strangers to each other, as requests are; short where the same few lanes come again and again, once it is written.
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
        self._queue: queue.SimpleQueue[AnyTicket | None] = queue.SimpleQueue()
        self._ready: collections.OrderedDict[str, collections.deque[AnyTicket]] = collections.OrderedDict()
        self._connection: psycopg.Connection[Any] | None = None
        self._queued_items = 0
        self._queued_bytes = 0
        self._counting = threading.Lock()
        self._began = float("inf")  # the batch that is being written
        self._away = False  # the last one found no database
        self._stuck = ""  # the stream whose last batch waited too long: what it writes is locked
        self._stopping = False
        self._blocked = 0  # items in a row that waited for a lock in vain
        self._crowd = 0.0  # how many shared the last batches
        self._took = 0.0  # seconds, the last one
        self._last_was_short = False  # the last batch was of a short stream
        self._let_others_pass: set[str] = set()  # streams whose last batch left a crowd waiting
        self._thread = vital_thread(name, self._run)

    # ------------------------------------------------------------ callers

    def submit(
        self,
        stream: Stream[Item, Result],
        item: Item,
        done: Callable[[list[Ticket[Item, Result]]], None],
        *,
        deadline: float = float("inf"),
        size: int = 0,
        about: Any = None,
    ) -> None:
        """Queue ``item``. Raises ``Busy`` when the queue of an impatient stream is full."""
        self.submit_all(stream, [item], done, deadline=deadline, size=size, about=about)

    def refuse_if_silent(self) -> None:
        """Raises ``NotStored`` while somebody waits already for a database that does not answer."""
        if self._silent():
            raise NotStored(SILENCE)

    def _silent(self) -> bool:
        return time.monotonic() - self._began > (BACK_SECONDS if self._away or self._stuck else SILENT_SECONDS)

    def submit_all(
        self,
        stream: Stream[Item, Result],
        items: Sequence[Item],
        done: Callable[[list[Ticket[Item, Result]]], None],
        *,
        deadline: float = float("inf"),
        size: int = 0,
        about: Any = None,
    ) -> list[Ticket[Item, Result]]:
        """Queue all ``items`` of one request, or none: ``Busy``. ``size``: bytes that they keep in memory together.

        Raises ``NotStored`` at once where somebody else waits already for a database that does not answer: threads
        that wait as well would only keep those behind them from their answers.
        """
        if not stream.patient:
            self.refuse_if_silent()
        with self._counting:
            full = self._queued_items >= QUEUED_ITEMS or self._queued_bytes >= QUEUED_BYTES
            if full and not stream.patient:
                raise Busy(f"{self._queued_items} items wait to be written")
            self._queued_items += len(items)
            self._queued_bytes += size
        failed_lanes: set[Hashable] = set()
        sizes = itertools.chain([size], itertools.repeat(0))
        tickets = [
            Ticket(stream, item, done, deadline, its, failed_lanes, about)
            for item, its in zip(items, sizes, strict=False)
        ]
        for ticket in tickets:
            self._queue.put(ticket)
        return tickets

    def write(self, stream: Stream[Item, Result], item: Item, timeout: float = 10.0) -> Result:
        """Write ``item`` and wait for its result; see ``write_all``."""
        return self.write_all(stream, [item], timeout)[0]

    def write_all(
        self, stream: Stream[Item, Result], items: Sequence[Item], timeout: float = 10.0, size: int = 0
    ) -> list[Result]:
        """Write the items of one request and wait for all; their results.

        Raises ``Busy``, the first error of their writing, or ``NotStored`` after ``timeout``.
        """
        if threading.current_thread() is self._thread:  # a read of ``done`` or of a stream: nobody else would serve it
            return self._write_here(stream, items)
        if not items:
            return []
        waiting = threading.Lock()  # a bare lock: an event would cost each request several times as much
        waiting.acquire()
        left = len(items)

        def done(tickets: list[Ticket[Item, Result]]) -> None:
            nonlocal left
            left -= len(tickets)
            if not left:
                waiting.release()

        tickets = self.submit_all(stream, items, done, deadline=time.monotonic() + timeout, size=size)
        if not waiting.acquire(timeout=timeout + LAST_SECONDS):
            raise NotStored("no answer from the database in time")
        errors = [ticket.error for ticket in tickets if ticket.error is not None]
        if not errors:
            return [ticket.result for ticket in tickets]
        try:
            raise errors[0]
        finally:  # an error knows its frames: what they hold, a request's bytes, would stay until the collector comes
            tickets.clear()
            errors.clear()
            del items

    def _write_here(self, stream: Stream[Item, Result], items: Sequence[Item]) -> list[Result]:
        results: list[Result] = []
        for result in stream.write(self._open(), items):
            if result is LANE_LOCKED:
                raise NotStored("its lane is locked, and the committer's thread cannot wait for it")
            results.append(result)
        return results

    def stop(self, timeout: float = 5.0) -> None:
        """Write what is queued, then end."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not (self._stopping and not self._ready and self._queue.empty()):
            self._collect()
            tickets = self._next_batch()
            if tickets:
                self._crowd = (self._crowd + len(tickets)) / 2
                self._began = time.monotonic()
                written = self._write_batch(tickets)
                self._took = time.monotonic() - self._began
                self._began = float("inf")
                self._finish(written)
        if self._connection is not None:
            self._connection.close()

    def _collect(self) -> None:
        """Wait for something to do, then take all that is there. Under load, a moment later: more share a commit."""
        if self._crowd >= CROWD and not self._ready and not self._stopping:
            time.sleep(min(self._took, self._linger))
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

    def _next_batch(self) -> list[AnyTicket]:
        """Up to ``BATCH`` tickets of the stream whose turn it is, and the first of each lane that was held."""
        if not self._ready:
            return []
        name = self._whose_turn()
        waiting = self._ready.pop(name)
        tickets: list[AnyTicket] = []
        passed: list[AnyTicket] = []
        held: set[Hashable] = set()
        behind: set[Hashable] = set()
        crowds = self._crowds(name, waiting)
        while waiting and len(tickets) < BATCH + len(held):
            ticket = waiting.popleft()
            if self._over(ticket):
                continue
            if ticket.owner in crowds or ticket.lane in held or ticket.lane in behind:
                behind.add(ticket.lane)  # and what comes later in its lane, whoever's it is by then
                passed.append(ticket)
                continue
            if ticket.waits_for_lane:  # one of its lane asks again: the others must not fill the batch
                held.add(ticket.lane)
            tickets.append(ticket)
        waiting.extendleft(reversed(passed))
        if waiting:
            self._ready[name] = waiting
        return tickets

    def _whose_turn(self) -> str:
        """The stream that waited longest; or, every second time, a short one."""
        name = next(iter(self._ready))
        if not self._last_was_short:
            name = next((each for each, waiting in self._ready.items() if waiting[0].stream.short), name)
        self._last_was_short = self._ready[name][0].stream.short
        return name

    def _crowds(self, name: str, waiting: Collection[AnyTicket]) -> set[Hashable]:
        """The lines that are left out of this batch, since others wait behind them; not twice in a row."""
        if len(waiting) <= CROWDED or name in self._let_others_pass:
            self._let_others_pass.discard(name)
            return set()
        lines = collections.Counter(ticket.owner for ticket in waiting)
        crowds = {line for line, count in lines.items() if count > CROWDED}
        if not crowds or len(crowds) == len(lines):
            return set()
        self._let_others_pass.add(name)
        return crowds

    def _over(self, ticket: AnyTicket) -> bool:
        """Its deadline passed, or an earlier one of its request and lane failed: it is answered now."""
        if ticket.lane in ticket.failed_lanes:
            ticket.fail(NotStored("an earlier item of its lane could not be stored"))
        elif time.monotonic() >= ticket.deadline:
            ticket.fail(NotStored("its lane was held, or the database was away, until the deadline"))
        else:
            return False
        self._finish([ticket])
        return True

    def _write_batch(self, tickets: list[AnyTicket]) -> list[AnyTicket]:
        """Write one batch; the tickets that are done."""
        try:
            results = self._write(tickets)
        except UnsafeDatabase as error:
            log.critical("this database must not be used", committer=self.name, why=str(error))
            return self._put_off(tickets, error)
        except Exception as error:
            if isinstance(error, psycopg.Error) and self._lost():
                return self._put_off(tickets, error)
            log.warning("batch failed", committer=self.name, stream=tickets[0].stream.name, items=len(tickets),
                        error=type(error).__name__, sqlstate=getattr(error, "sqlstate", None))  # fmt: skip
            self._one_by_one(tickets)
            return []
        return self._settle(tickets, results)

    def _one_by_one(self, tickets: list[AnyTicket]) -> None:
        held: set[Hashable] = set()
        back: list[AnyTicket] = []
        self._blocked = 0
        for place, ticket in enumerate(tickets):
            # Patient ones wait for the database together, and for a table that somebody has locked.
            if ticket.stream.patient and (self._lost() or self._blocked >= BLOCKED):
                back.extend(tickets[place:])
                break
            if not ticket.stream.patient and self._silent():  # a table is locked: each of them would wait for it
                ticket.fail(NotStored(SILENCE))
                self._finish([ticket])
            elif ticket.lane in held:
                back.append(ticket)
            elif self._over(ticket):
                continue
            elif self._write_alone(ticket):
                self._finish([ticket])
            else:
                held.add(ticket.lane)
                back.append(ticket)
        self._put_back(back)

    def _write_alone(self, ticket: AnyTicket) -> bool:
        """True when the ticket is done, well or not; False when it has to wait."""
        try:
            results = self._write([ticket])
        except Exception as error:
            return self._refused(ticket, error)
        return ticket.takes(results[0])

    def _refused(self, ticket: AnyTicket, error: Exception) -> bool:
        """One item alone was refused: bad data is mended, anything else is tried again or answered 503."""
        ticket.tries += 1
        ticket.waits_for_lane = False
        wrong = None if self._lost() else _bad_data(error, ticket.stream)
        if wrong is not None:
            if wrong.sqlstate == "23505" and ticket.tries == 1:
                return self._write_alone(ticket)
            mended = ticket.stream.mend(ticket.item, wrong)
            if mended is not None and ticket.tries < 4:
                ticket.item = mended
                return self._write_alone(ticket)
            ticket.fail(error)
            return True
        log.warning("item not written", committer=self.name, stream=ticket.stream.name, error=type(error).__name__,
                    sqlstate=getattr(error, "sqlstate", None))  # fmt: skip
        if isinstance(error, psycopg.errors.LockNotAvailable):  # a migration waits for its turn: two seconds at most
            self._blocked += 1
            return False
        if ticket.stream.patient:
            time.sleep(RECONNECT_SECONDS)
            return False
        ticket.fail(NotStored(type(error).__name__))
        return True

    def _write(self, tickets: list[AnyTicket]) -> Sequence[Any]:
        stream = tickets[0].stream
        try:
            results = stream.write(self._open(), [ticket.item for ticket in tickets])
        except Exception:
            self._away = self._lost()
            if self._silent() and not stream.patient:
                self._stuck = stream.name
            raise
        self._away, self._blocked = False, 0
        if self._stuck == stream.name:  # another stream's success says nothing of a table that it does not touch
            self._stuck = ""
        return results

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self.name)
        return self._connection

    def _settle(self, tickets: list[AnyTicket], results: Sequence[Any]) -> list[AnyTicket]:
        done: list[AnyTicket] = []
        back: list[AnyTicket] = []
        for ticket, result in zip(tickets, results, strict=True):
            (done if ticket.takes(result) else back).append(ticket)
        self._put_back(back)
        return done

    def _put_back(self, tickets: list[AnyTicket]) -> None:
        """To the front, in order; they ride in the next batch."""
        if tickets:
            if self._queue.empty() and not self._ready:
                time.sleep(BUSY_SECONDS)
            waiting = self._ready.setdefault(tickets[0].stream.name, collections.deque())
            waiting.extendleft(reversed(tickets))

    def _lost(self) -> bool:
        return self._connection is None or self._connection.closed or self._connection.broken

    def _put_off(self, tickets: list[AnyTicket], error: Exception) -> list[AnyTicket]:
        """The database is away: patient items wait for it, others are answered now."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if tickets[0].stream.patient:
            time.sleep(RECONNECT_SECONDS)
            self._put_back(tickets)
            return []
        for ticket in tickets:
            ticket.fail(NotStored(type(error).__name__))
        return tickets

    def _finish(self, tickets: Iterable[AnyTicket]) -> None:
        finished = list(tickets)
        if not finished:
            return
        with self._counting:
            self._queued_items -= len(finished)
            self._queued_bytes -= sum(ticket.size for ticket in finished)
        together: dict[Callable[[list[AnyTicket]], None], list[AnyTicket]] = {}
        for ticket in finished:
            together.setdefault(ticket.done, []).append(ticket)
        for done, tickets_of_it in together.items():
            done(tickets_of_it)
        self._after_batch(finished)


def _bad_data(error: Exception, stream: Stream[Any, Any]) -> psycopg.Error | None:
    """``error`` as the database's word where the item itself cannot be written, whenever it is tried."""
    if isinstance(error, psycopg.Error):
        refused = (error.sqlstate or "")[:2] in ("22", "23")
        return error if refused or (error.sqlstate is None and isinstance(error, psycopg.DataError)) else None
    # What cannot even be encoded. A patient item has nobody who would bring it again.
    if isinstance(error, UnicodeError | OverflowError | RecursionError):
        return psycopg.DataError(type(error).__name__)
    return psycopg.DataError(type(error).__name__) if stream.patient and not isinstance(error, CoreError) else None
