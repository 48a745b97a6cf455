"""Draining the spool: a thread of every web process, one of which is the drainer; see ``spool`` for what must hold.

What cannot be stored now holds back its channel's later lines, and nobody else's. What cannot be stored for ever is
set aside as always; where the database refuses even that, or the line cannot be opened, people find it.
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

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.2
AGAIN_SECONDS = 0.5  # the database is away, or a line has to wait
STORE_SECONDS = 10.0
LAST_SECONDS = 0.5  # for the last few lines, while nobody appends
PATIENCE_SECONDS = 60.0  # of a line that is refused again and again, while the database answers
HOSTS_SECONDS = 10.0


Pair = tuple[spool.Line, spool.Request]


class Away(Exception):
    """The database does not answer."""


def start() -> None:
    """For every web process, at its start: what a former life accepted must not wait for the next webhook."""
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
        except Exception as error:  # whatever it is: what was accepted is on the disk, and is tried again
            log.exception("spool not drained", error=type(error).__name__)
        time.sleep(LOOK_SECONDS)


def look_for_other_hosts() -> None:
    """What was seen last holds while the database is away."""
    try:
        intake.writer()
        spool.other_hosts[:] = connection_budget.other_hosts(database.read(connection_budget.WEB_HOSTS))
    except (psycopg.Error, CoreError):
        return
    if spool.other_hosts:
        log.critical("the spool is not used: it is for one host", others=spool.other_hosts)


def drain() -> None:
    """Until the log is empty, where nobody else does it. The place is kept while the flock is held, and only then."""
    if not spool.holds():
        return
    with spool.drainer() as mine:
        if not mine:
            return
        drainer = Drainer()
        while spool.holds():
            try:
                if drainer.run():
                    return
            except (Away, NotStored) as error:
                log.warning("spool waits", error=str(error))
            time.sleep(AGAIN_SECONDS)


class Drainer:
    """One holding of the drainer's flock."""

    def __init__(self) -> None:
        self._begin = 0  # every line before it is done
        self._refused_since: dict[int, float] = {}  # by the line's place
        self._pace = 0.002  # seconds per line, as it was last

    def run(self) -> bool:
        """One pass over the log; True when it is empty, False when some lines have to wait."""
        _check_database()
        waiting: set[int] = set()  # channels
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
        """The last lines, while nobody appends; False where that is more than can be done at once."""
        with spool.closed():
            lines, _, is_last = spool.read(at)
            if not is_last or not self._stored(self._opened(lines), LAST_SECONDS):
                return False
            spool.empty()
        return True

    def _store(self, lines: Sequence[spool.Line], waiting: set[int]) -> None:
        opened = self._opened(lines)
        free = [pair for pair in opened if pair[1].channel.id not in waiting]
        if not self._stored(free, STORE_SECONDS):
            _check_database()
            self._one_by_one(free, waiting)

    def _stored(self, pairs: Sequence[Pair], seconds: float) -> bool:
        """All of them, together."""
        if not pairs:
            return True
        try:
            intake.store([request for _, request in pairs], seconds)
        except Exception as error:  # one of them; or the database
            log.warning("spooled requests not stored together", count=len(pairs), error=type(error).__name__)
            return False
        failpoint("P3")
        spool.mark([line for line, _ in pairs])
        return True

    def _opened(self, lines: Sequence[spool.Line]) -> list[Pair]:
        opened = []
        for line in lines:
            try:
                opened.append((line, spool.unseal(line)))
            except Exception as error:  # torn by the machine's death before its fsync, or sealed by another key
                log.critical("a line of the spool cannot be opened", offset=line.offset, error=type(error).__name__)
                spool.set_aside(line)
        return opened

    def _one_by_one(self, pairs: Sequence[Pair], waiting: set[int]) -> None:
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

    def _give_up(self, line: spool.Line, request: spool.Request, error: Exception) -> bool:
        """Refused for ``PATIENCE_SECONDS``: its bytes are set aside for staff, and its channel goes on."""
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
    """Raises ``Away``. Also where its key is not ours: then no line could be told from a bad one."""
    try:
        intake.writer()
        database.read("SELECT 1")
        installation.identity_key()
    except (psycopg.Error, CoreError) as error:
        raise Away("the database does not answer") from error
