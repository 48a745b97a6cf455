"""Stores what the spool holds. Each web process has the thread; one at a time is the drainer.

The docstring of ``spool`` says which order must hold. A line that cannot be stored now holds back
later lines of its channel, and of no other. A line that can never be stored is quarantined. If the
database refuses even that, the line waits. A line that cannot be opened is kept for people.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg
import structlog

from conversations import installation, runtime
from conversations.concurrency import vital_thread
from conversations.contracts import Unusable
from conversations.errors import CoreError, NotStored
from conversations.failpoints import failpoint
from conversations.postgres import database
from conversations.storing import intake, spool
from conversations.storing.rows import ParsedRequest
from conversations.storing.spool_format import Line, unseal

log = structlog.get_logger(__name__)

# Seconds between two looks at the spool's log. Larger: requests stay in it for longer. Smaller:
# more looks at an empty file.
LOOK_SECONDS = 0.2
# Seconds until the next pass over the log, while the database is away or a line has to wait.
# Larger: the spool is empty later. Smaller: more attempts in vain.
AGAIN_SECONDS = 0.5
# Seconds to store one chunk of lines, at most; then its lines are stored one by one. Larger: one
# line that waits for a lock holds up the others for longer. Smaller: a slow database gets a
# transaction per line, and is slower still.
STORE_SECONDS = 10.0
# Seconds to store the last few lines, at most, while requests wait to append. Larger: these
# requests may be refused, see ``spool.LOCK_SECONDS``. Smaller: a busy log is seldom emptied.
LAST_SECONDS = 0.5
# Seconds for which a database that answers may refuse a line; then the line is quarantined. Larger:
# its channel is held back for longer. Smaller: a passing fault quarantines good lines.
PATIENCE_SECONDS = 60.0
# Seconds between two checks for web processes on other hosts. Larger: such a process may store new
# messages before earlier ones in this spool for longer. Smaller: more queries.
HOSTS_SECONDS = 10.0

Pair = tuple[Line, ParsedRequest]


def start() -> None:
    """Start the draining thread of a web process.

    At its start, not at the first request: a former process may have left lines.
    """
    if spool.is_on():
        vital_thread("drain", _run)


def _run() -> None:
    """Drain for ever. No error ends the thread: it would end the web process."""
    next_hosts_check = 0.0
    while True:
        if time.monotonic() >= next_hosts_check:
            next_hosts_check = time.monotonic() + HOSTS_SECONDS
            look_for_other_hosts()
        try:
            drain()
        except Exception as error:  # whatever it is: the lines are on the disk and are tried again
            log.exception("spool not drained", error=type(error).__name__)
        time.sleep(LOOK_SECONDS)


def look_for_other_hosts() -> None:
    """Update ``spool.other_hosts``. While the database is away, the last answer stays."""
    try:
        intake.writer()  # from now on the process reads through it
        spool.other_hosts()[:] = database.other_hosts(runtime.read(database.WEB_HOSTS))
    except (psycopg.Error, CoreError):
        return
    if others := spool.other_hosts():
        log.critical("the spool is not used: it is for one host", others=others)


def drain() -> None:
    """Drain the log until it is empty, unless another process is the drainer.

    How far the log is stored is remembered only while the flock is held: without it, another
    process may drain and truncate the log.
    """
    if not spool.has_lines():
        return
    with spool.drainer() as is_drainer:
        if not is_drainer:
            return
        drainer = Drainer()
        while spool.has_lines():
            try:
                if drainer.run():
                    return
            except NotStored as error:
                log.warning("spool waits", error=str(error))
            time.sleep(AGAIN_SECONDS)


class Drainer:
    """Drains the log, and remembers how far, while this process holds the flock."""

    def __init__(self) -> None:
        self._stored_until = 0  # offset; every line before it is stored
        self._refused_since: dict[int, float] = {}  # monotonic clock, by the line's offset
        self._seconds_per_line = 0.002  # a guess until the first chunk is measured

    def run(self) -> bool:
        """Make one pass over the log. Return True if it is empty, False if lines have to wait.

        New lines are appended meanwhile. Once so few are left that they are stored quickly (in half
        of ``LAST_SECONDS``, since the estimate may be wrong), the log is closed and emptied.
        """
        _check_database()
        waiting: set[int] = set()  # channels whose later lines are held back, see ``_order``
        offset = self._stored_until
        while True:
            lines, next_offset, is_last = spool.read(offset)
            if is_last and waiting:
                self._store(lines, waiting)
                return False
            if is_last and len(lines) * self._seconds_per_line < LAST_SECONDS / 2 and self._finish(offset):
                return True
            began = time.monotonic()
            self._store(lines, waiting)
            if lines:
                self._seconds_per_line = (time.monotonic() - began) / len(lines)
            offset = next_offset
            if not waiting:
                self._stored_until = offset

    def _finish(self, offset: int) -> bool:
        """Store the last lines and truncate, while nobody appends. Return False if too many."""
        with spool.closed():
            lines, _, is_last = spool.read(offset)
            if not is_last or not self._store_together(self._open(lines), LAST_SECONDS):
                return False
            spool.truncate()
        return True

    def _store(self, lines: Sequence[Line], waiting: set[int]) -> None:
        """Store the lines of channels that are not in ``waiting``; add channels that have to wait.

        Raises ``NotStored``: while the database is away, no line is to blame.
        """
        opened = self._open(lines)
        not_held_back = [pair for pair in opened if _order(pair[1]) not in waiting]
        if not self._store_together(not_held_back, STORE_SECONDS):
            _check_database()
            self._store_one_by_one(not_held_back, waiting)

    def _store_together(self, pairs: Sequence[Pair], seconds: float) -> bool:
        """Store all requests at once and mark their lines. Return False if that failed."""
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
        """Decrypt the lines. Set aside those that cannot be opened: they must not stop others."""
        opened = []
        for line in lines:
            try:
                opened.append((line, unseal(line)))
            except Exception as error:  # the machine died before fsync, or it has another key
                log.critical("a line of the spool cannot be opened", offset=line.offset, error=type(error).__name__)
                spool.set_aside(line)
        return opened

    def _store_one_by_one(self, pairs: Sequence[Pair], waiting: set[int]) -> None:
        """Store each request by itself. A refused one puts its channel into ``waiting``."""
        for line, request in pairs:
            if _order(request) in waiting:
                continue
            try:
                intake.store([request])
            except Exception as error:
                _check_database()
                if not self._give_up(line, request, error):
                    waiting.add(_order(request))
                    continue
            spool.mark([line])

    def _give_up(self, line: Line, request: ParsedRequest, error: Exception) -> bool:
        """Quarantine a line that was refused for ``PATIENCE_SECONDS``. Return True if that is done.

        Later lines of its channel may then be stored. ``error``: why it was refused.
        """
        since = self._refused_since.setdefault(line.offset, time.monotonic())
        log.warning("a spooled request is refused", channel=request.channel.id, error=type(error).__name__)
        if time.monotonic() - since < PATIENCE_SECONDS:
            return False
        unusable = Unusable(reason=f"the database refused it, from the spool: {error}", raw=request.request.body)
        try:
            intake.store([request._replace(parsed=[unusable])])
        except Exception as refusal:
            log.error("a spooled request cannot even be set aside", error=type(refusal).__name__)
            return False
        return True


def _order(request: ParsedRequest) -> int:
    """Return a number that requests share whose order matters: of one channel, or of one app.

    What is for a channel of an app may have come to the URL of any of them.
    """
    return -request.channel.app_id or request.channel.id


def _check_database() -> None:
    """Raise ``NotStored`` if the database does not answer, or if its identity key is not ours.

    With another key no line opens, and good lines would be taken for bad ones.
    """
    try:
        intake.writer()
        runtime.read("SELECT 1")
        installation.identity_key()
    except (psycopg.Error, CoreError) as error:
        raise NotStored("the database does not answer") from error
