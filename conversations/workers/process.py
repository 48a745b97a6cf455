"""One life of a worker process: its Worker row, its heartbeat and the engine for its kind of work.

A process that stops on purpose deletes its row. The sweeper treats a row without new heartbeats as
a dead worker.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Sequence

import psycopg
import structlog
from django.conf import settings

from conversations import registry, runtime
from conversations.acts import checkouts
from conversations.concurrency import Fresh
from conversations.contracts import Work
from conversations.delivering.limiter import Limiter
from conversations.delivering.sender import Sender
from conversations.errors import CoreError
from conversations.handling.handler import Handler
from conversations.lanes import lock
from conversations.media import fetching
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import as_json
from conversations.telemetry import logs

log = structlog.get_logger(__name__)

# Seconds between two heartbeats. Longer: a living process that misses one may count as dead (see
# ``heartbeats.DEAD_SECONDS``); shorter: more writes.
BEAT_SECONDS = 2.0
# Seconds that running turns and calls get after SIGTERM. Longer: the supervisor (22 s) or Heroku
# (30 s) kills us first; shorter: more turns are cut off and run again.
GRACE_SECONDS = 16.0

SENDERS = "SELECT count(*) FROM worker WHERE kind = ANY (%(kinds)s) AND NOT dead"
LEAVE = "DELETE FROM worker WHERE incarnation = %(incarnation)s"


class Process:
    """This worker process, made once by ``lifecycle.start``.

    ``incarnation`` names one life of it: rows and locks of an earlier life are not ours.
    """

    def __init__(self, kind: Work, ours: runtime.Runtime) -> None:
        self.kind = kind
        self.incarnation = uuid.uuid4()
        self._bots = as_json(registry.bot_names()) if kind == Work.HANDLE else None
        self.writer = ours.start_writer(kind, reads=kind != Work.HANDLE)
        self.handler: Handler | None = None
        self.sender: Sender | None = None
        self._making = threading.Lock()
        self._announcing = threading.Lock()
        self._left = False
        self._replacing = False

    # ------------------------------------------------------------ engines

    def make_handler(self) -> Handler:
        """Return the one handler of this process. A sweeper makes one only while Redis is away."""
        with self._making:
            if self.handler is None:
                locks = lock.Locks(Work.HANDLE, str(self.incarnation))
                self.handler = Handler(self.writer, locks, self.announce)
            return self.handler

    def make_sender(self) -> Sender:
        """Return the one sender of this process. A sweeper makes one only while Redis is away."""
        with self._making:
            if self.sender is None:
                locks = lock.Locks(Work.SEND, str(self.incarnation))
                limiter = Limiter(Fresh(_count_senders, BEAT_SECONDS, first=1))
                self.sender = Sender(self.writer, locks, self.incarnation, limiter)
            return self.sender

    # ------------------------------------------------------------ the row

    def announce(self, then: database.Statement | None = None) -> Sequence[database.Row] | None:
        """Write a heartbeat, and the lanes in hand, into the Worker row before their turns begin.

        If this process dies, the sweeper finds these lanes in the row. ``then`` is sent in the same
        round trip, and its rows are returned. Returns None if the row was not written.
        """
        with self._announcing:
            if self._left:
                return None
            values = {"incarnation": self.incarnation, "kind": self.kind, "host": platform.node(), "pid": os.getpid(),
                      "version": settings.VERSION, "running": as_json(self._running()), "bots": self._bots}  # fmt: skip
            try:
                alive, *rest = runtime.execute_all([(sql("beat"), values), *([then] if then else [])])
            except (psycopg.Error, CoreError) as error:
                log.warning("beat not written", error=type(error).__name__)
                return None
            if not alive:
                self._begin_again()
                return None
            return rest[0] if rest else alive

    def _running(self) -> list[int]:
        """Return the lanes that this process handles; in a sender, those that it delivers."""
        engine = self.sender if self.kind == Work.SEND else self.handler
        return engine.locks.running() if engine else []

    def _begin_again(self) -> None:
        """Take a new incarnation: the sweeper marked us dead and made our lanes due for others.

        Results of work that runs now are still written under the old incarnation.
        """
        log.error("taken for dead; a new incarnation begins", kind=self.kind)
        self.incarnation = uuid.uuid4()
        if self.handler is not None:
            self.handler.locks.begin_again(str(self.incarnation))
        if self.sender is not None:
            self.sender.incarnation = self.incarnation
            self.sender.locks.begin_again(str(self.incarnation))

    def beat(self) -> None:
        """Beat and renew claims every ``BEAT_SECONDS``; replace the process if a turn never ends."""
        while True:
            self.announce(fetching.fetcher().renewal())
            if self.handler is not None and self.handler.overdue.is_set() and not self._replacing:
                self._replacing = True
                threading.Thread(target=self._replace, args=(self.handler,), name="replace", daemon=True).start()
            time.sleep(BEAT_SECONDS)

    def _replace(self, handler: Handler) -> None:
        """End this process once its other turns have ended; the supervisor starts a new one.

        A turn never ended. Python cannot stop its thread, which would stay in use for ever.
        """
        log.error("a turn never ended: this process is replaced")
        handler.stop(settings.TURN_SECONDS)
        self.stop()
        logs.flush()
        os._exit(0)

    def leave(self) -> None:
        """Delete our Worker row.

        If it stayed, the sweeper would count this stop as a death, and its lanes as suspects: lanes
        whose message may have killed the worker.
        """
        with self._announcing:
            self._left = True
            try:
                runtime.execute(LEAVE, {"incarnation": self.incarnation})
            except (psycopg.Error, CoreError) as error:
                log.warning("row not removed", error=type(error).__name__)

    def stop(self) -> None:
        """Take no new work, let turns, calls and checkouts finish and commit, then delete the row."""
        end = time.monotonic() + GRACE_SECONDS
        for engine in (self.sender, self.handler, fetching.fetcher()):
            if engine is not None:
                engine.stop(max(0.0, end - time.monotonic()))
        checkouts.finish(max(0.0, end - time.monotonic()))
        self.leave()
        self.writer.stop(2.0)


def _count_senders(last: int) -> int:
    """Count the processes that may deliver: they share a platform's rate limits without Redis.

    While the database is away, return the last count.
    """
    try:
        return max(1, runtime.read(SENDERS, {"kinds": [Work.SEND, Work.SWEEP]})[0][0])
    except (psycopg.Error, CoreError):
        return last
