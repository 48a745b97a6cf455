"""One life of a worker process: its row, its beat, its role's engine. Wired into Celery by signals.

A process that ends by our own will removes its row. One that only stops beating died: the sweeper sees it.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
import uuid
from typing import Any

import psycopg
import structlog
from celery.signals import worker_init, worker_shutting_down

from conversations import committer, database, lock
from conversations.errors import CoreError
from conversations.limiter import Limiter
from conversations.outbox import Sender
from conversations.processing import Handler
from conversations.sqlfiles import sql

log = structlog.get_logger(__name__)

BEAT_SECONDS = 2.0
GRACE_SECONDS = 18.0  # for turns and calls that run when we are told to stop; Heroku kills at 30
VERSION = os.environ.get("HEROKU_RELEASE_VERSION") or os.environ.get("RELEASE_VERSION", "")

HANDLE, SEND, SWEEP = "handle", "send", "sweep"


class Process:
    """What this process is: made once, by ``start``."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.incarnation = uuid.uuid4()
        self.writer = committer.Committer(kind)
        if kind != HANDLE:
            database.read_through(committer.reader(self.writer))
        self.handler: Handler | None = None
        self.sender: Sender | None = None
        self._beaten = 0.0
        self._stopping = threading.Event()
        self._announced = threading.Lock()

    # ------------------------------------------------------------ engines

    def make_handler(self) -> Handler:
        if self.handler is None:
            locks = lock.Locks(lock.HANDLING, str(self.incarnation))
            self.handler = Handler(self.writer, locks, self.incarnation, self.announce)
        return self.handler

    def make_sender(self) -> Sender:
        if self.sender is None:
            locks = lock.Locks(lock.SENDING, str(self.incarnation))
            self.sender = Sender(self.writer, locks, self.incarnation, Limiter(live_senders))
        return self.sender

    # ------------------------------------------------------------ the row

    def announce(self) -> None:
        """Write the lanes in hand into the Worker row, before their turns begin."""
        running = self.handler.locks.running() if self.handler else []
        values = {"incarnation": self.incarnation, "kind": self.kind, "host": platform.node(), "pid": os.getpid(),
                  "version": VERSION, "running": running}  # fmt: skip
        with self._announced:
            try:
                rows = database.execute(sql("beat"), {**values, "running": committer.as_json(running)})
            except (psycopg.Error, CoreError) as error:
                log.warning("beat not written", error=type(error).__name__)
                return
        if not rows:
            self._reborn()

    def _reborn(self) -> None:
        """Somebody took us for dead: what we hold is theirs now. A new incarnation; results are written under the old claims."""
        log.error("taken for dead; a new incarnation begins", kind=self.kind)
        self.incarnation = uuid.uuid4()
        for engine in (self.handler, self.sender):
            if engine is not None:
                engine.incarnation = self.incarnation
                engine.locks.token = str(self.incarnation)

    def beat(self) -> None:
        """For ever, every ``BEAT_SECONDS``; a process whose beat ends must end."""
        try:
            while not self._stopping.is_set():
                self.announce()
                if self.handler is not None and self.handler.overdue.is_set():
                    self._replace()
                self._stopping.wait(BEAT_SECONDS)
        except BaseException as error:
            log.critical("beat died", error=type(error).__name__, exc_info=True)
            committer.end_process()

    def _replace(self) -> None:
        """A turn never ended and its thread cannot be stopped: let the others finish, then end; the supervisor starts another."""
        assert self.handler is not None
        log.error("a turn never ended: this process is replaced")
        self.handler.stop(GRACE_SECONDS)
        self.leave()
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        """We end by our own will: no suspects."""
        self._stopping.set()
        try:
            database.execute("DELETE FROM worker WHERE incarnation = %(incarnation)s", {"incarnation": self.incarnation})
        except (psycopg.Error, CoreError) as error:
            log.warning("row not removed", error=type(error).__name__)

    def stop(self) -> None:
        """Take nothing new, let what runs end and be committed, write the rest, remove the row."""
        end = time.monotonic() + GRACE_SECONDS
        for engine in (self.sender, self.handler):
            if engine is not None:
                engine.stop(max(0.0, end - time.monotonic()))
        self.leave()
        self.writer.stop(2.0)


_process: Process | None = None
_senders = (0.0, 1)


def current() -> Process:
    """This process's life. Raises ``RuntimeError`` outside a worker."""
    if _process is None:
        raise RuntimeError("not a worker process")
    return _process


def start(kind: str) -> Process:
    """Begin this process's life with the engine of its role."""
    global _process
    if _process is None:
        _process = Process(kind)
        if kind == HANDLE:
            _process.make_handler()
        elif kind == SEND:
            _process.make_sender()
        else:
            from conversations.sweeper import Sweeper

            Sweeper(_process).start()
        threading.Thread(target=_process.beat, name="beat", daemon=True).start()
    return _process


def live_senders() -> int:
    """How many processes deliver; at most 2 s old."""
    global _senders
    if time.monotonic() - _senders[0] > BEAT_SECONDS:
        try:
            rows = database.read("SELECT count(*) FROM worker WHERE kind IN ('send', 'sweep') AND NOT dead")
            _senders = (time.monotonic(), max(1, rows[0][0]))
        except (psycopg.Error, CoreError):
            _senders = (time.monotonic(), _senders[1])
    return _senders[1]


@worker_init.connect
def _begin(**kwargs: Any) -> None:
    start(os.environ.get("WORKER_ROLE", HANDLE))


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    """On SIGTERM, beside Celery's own shutdown: when all is written, or time is over, the process ends."""
    if _process is not None:
        threading.Thread(target=_stop_and_exit, name="stop", daemon=True).start()


def _stop_and_exit() -> None:
    current().stop()
    os._exit(0)
