"""Stores what the spool holds. Each web process has the thread; one at a time is the drainer.

``spool`` says what must hold. A line that cannot be stored now holds back later lines of its
channel, and of no other. A line that can never be stored is quarantined. If the database refuses
even that, the line waits; if it cannot be opened, it is kept for people.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg
import structlog

from conversations import installation
from conversations.concurrency import vital_thread
from conversations.contracts import Unusable
from conversations.errors import CoreError, NotStored
from conversations.failpoints import failpoint
from conversations.postgres import connection_budget, database
from conversations.storing import intake, spool
from conversations.storing.rows import ParsedRequest
from conversations.storing.spool_format import Line, unseal

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.2  # between two looks at the log; longer: requests stay in the spool for longer
AGAIN_SECONDS = 0.5  # until the next pass while the database is away or a line has to wait
STORE_SECONDS = 10.0  # longest time to store one chunk of lines before they are stored one by one
# Longest time to store the last few lines, while requests wait to append. With a longer one they
# may be refused, see ``spool.LOCK_SECONDS``; with a shorter one, a busy log is seldom emptied.
LAST_SECONDS = 0.5
# A line that the database refuses for so long, while it answers, is quarantined. A longer time
# holds its channel back for longer; with a shorter one, a passing fault quarantines good lines.
PATIENCE_SECONDS = 60.0
HOSTS_SECONDS = 10.0  # between two looks for web processes of other hosts


Pair = tuple[Line, ParsedRequest]


class Away(Exception):
    """The database does not answer."""


def start() -> None:
    """Start the thread, at the start of a web process: lines of a former process must not wait."""
    if spool.is_on():
        vital_thread("drain", _run)


def _run() -> None:
    hosts_at = 0.0
    while True:
        if time.monotonic() >= hosts_at:
            hosts_at = time.monotonic() + HOSTS_SECONDS
            look_for_other_hosts()
        try:
            drain()
        except Exception as error:  # whatever it is: the lines are on the disk and are tried again
            log.exception("spool not drained", error=type(error).__name__)
        time.sleep(LOOK_SECONDS)


def look_for_other_hosts() -> None:
    """Update ``spool.other_hosts``. While the database is away, the last answer stays."""
    try:
        intake.writer()
        spool.other_hosts[:] = connection_budget.other_hosts(database.read(connection_budget.WEB_HOSTS))
    except (psycopg.Error, CoreError):
        return
    if spool.other_hosts:
        log.critical("the spool is not used: it is for one host", others=spool.other_hosts)


def drain() -> None:
    """Drain the log until it is empty, unless another process is the drainer.

    The place in the log is remembered only while the flock is held.
    """
    if not spool.has_lines():
        return
    with spool.drainer() as mine:
        if not mine:
            return
        drainer = Drainer()
        while spool.has_lines():
            try:
                if drainer.run():
                    return
            except (Away, NotStored) as error:
                log.warning("spool waits", error=str(error))
            time.sleep(AGAIN_SECONDS)


class Drainer:
    """What the drainer remembers while it holds the flock."""

    def __init__(self) -> None:
        self._begin = 0  # offset; every line before it is stored
        self._refused_since: dict[int, float] = {}  # monotonic clock, by the line's offset
        self._pace = 0.002  # seconds per line, as measured last

    def run(self) -> bool:
        """Make one pass over the log. Return True if it is empty, False if lines have to wait."""
        _check_database()
        waiting: set[int] = set()  # ids of channels whose later lines are held back
        at = self._begin
        while True:
            lines, after, is_last = spool.read(at)
            if is_last and waiting:
                self._store(lines, waiting)
                return False
            if is_last and len(lines) * self._pace < LAST_SECONDS / 2 and self._finish(at):
                return True
            began = time.monotonic()
            self._store(lines, waiting)
            if lines:
                self._pace = (time.monotonic() - began) / len(lines)
            at = after
            if not waiting:
                self._begin = at

    def _finish(self, at: int) -> bool:
        """Store the last lines and truncate, while nobody appends. Return False if too many."""
        with spool.closed():
            lines, _, is_last = spool.read(at)
            if not is_last or not self._store_together(self._open(lines), LAST_SECONDS):
                return False
            spool.truncate()
        return True

    def _store(self, lines: Sequence[Line], waiting: set[int]) -> None:
        opened = self._open(lines)
        free = [pair for pair in opened if pair[1].channel.id not in waiting]
        if not self._store_together(free, STORE_SECONDS):
            _check_database()
            self._store_one_by_one(free, waiting)

    def _store_together(self, pairs: Sequence[Pair], seconds: float) -> bool:
        """Store all of them in one go. Return False if that failed."""
        if not pairs:
            return True
        try:
            intake.store([request for _, request in pairs], seconds)
        except Exception as error:  # the fault of one line, or of the database
            log.warning("spooled requests not stored together", count=len(pairs), error=type(error).__name__)
            return False
        failpoint("P3")
        spool.mark([line for line, _ in pairs])
        return True

    def _open(self, lines: Sequence[Line]) -> list[Pair]:
        opened = []
        for line in lines:
            try:
                opened.append((line, unseal(line)))
            except Exception as error:  # the machine died before fsync, or it has another key
                log.critical("a line of the spool cannot be opened", offset=line.offset, error=type(error).__name__)
                spool.set_aside(line)
        return opened

    def _store_one_by_one(self, pairs: Sequence[Pair], waiting: set[int]) -> None:
        for line, request in pairs:
            if request.channel.id in waiting:
                continue
            try:
                intake.store([request])
            except Exception as error:
                _check_database()
                if not self._give_up(line, request, error):
                    waiting.add(request.channel.id)
                    continue
            spool.mark([line])

    def _give_up(self, line: Line, request: ParsedRequest, error: Exception) -> bool:
        """Quarantine a line that was refused for ``PATIENCE_SECONDS``. Return True if done."""
        since = self._refused_since.setdefault(line.offset, time.monotonic())
        log.warning("a spooled request is refused", channel=request.channel.id, error=type(error).__name__)
        if time.monotonic() - since < PATIENCE_SECONDS:
            return False
        aside = Unusable(reason=f"the database refused it, from the spool: {error}", raw=request.request.body)
        try:
            intake.store([request._replace(parsed=[aside])])
        except Exception as again:
            log.error("a spooled request cannot even be set aside", error=type(again).__name__)
            return False
        return True


def _check_database() -> None:
    """Raise ``Away`` if the database does not answer, or if its identity key is not ours.

    With another key no line opens, and good lines would be taken for bad ones.
    """
    try:
        intake.writer()
        database.read("SELECT 1")
        installation.identity_key()
    except (psycopg.Error, CoreError) as error:
        raise Away("the database does not answer") from error
