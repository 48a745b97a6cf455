"""The spool: a file on this host's lasting disk that takes webhooks while Postgres does not.

It is off without ``SPOOL_DIR``. The folder holds three files:

    log     one line per accepted request, see ``spool_format``; marked in place once it is stored
    drain   the process that holds its flock drains the log, see ``spool_drainer``
    bad     lines that could not be opened, kept for people

**Invariant:** what was accepted before another request of the same person came is stored before it,
whichever way each of them took, through any web process of this host.

Why this needs no lock in the usual case. A request begins by asking ``has_lines()``, which looks at
the size of the log. The log becomes empty in one place only: it is truncated, under its flock,
after every line in it was committed. So there are three cases.

1. The log is empty. Then every request that was accepted before this one began is committed,
   whichever process took it, and this one is stored directly, after them. A line that is appended
   meanwhile belongs to a request that was not yet accepted when this one began: the two are
   concurrent, and either order is right. This holds even if the process is stopped between the look
   and its COMMIT.
2. The log has lines. Then the request is appended, behind every request accepted before. Lines are
   stored in their order, so it comes after them. A later request sees its line in the log, or its
   line is committed.
3. Storing directly failed, or its outcome is unknown. Then the request is appended. If its COMMIT
   succeeds all the same, before or after its line is stored, de-duplication keeps one of the two.
   Later requests come after its line.

To append is to lock the log, cut off a torn end (bytes after the last newline: a writer died, and
its request was not answered), write the line, unlock, fsync, and only then answer 200. If the write
fails, its bytes are cut off and the answer is 503. A request that saw lines but finds the log empty
under the lock is stored directly (``only_behind``). Otherwise the threads that waited for the lock
would fill the log again for ever.

The drainer reads whole lines without the lock, stores them in order and marks each one in place. It
takes the lock only for the last few lines, stores them and truncates the log; so the log becomes
empty even under load. If a drainer is killed between COMMIT and mark, the next one stores those
lines again, as duplicates. The flock on ``drain`` ends with its process. A transaction that a
killed drainer left running holds whole lines in their order, so whatever it commits is in order.

This works on one host. Another host would store a request directly although it belongs behind lines
of our log. While a web process of another host is connected to the database, nothing is appended
(503), and ``check`` refuses the setting.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from django.conf import settings

from conversations import runtime
from conversations.errors import NotStored
from conversations.failpoints import failpoint
from conversations.storing.rows import ParsedRequest
from conversations.storing.spool_format import Line, is_stored, make_line, read_line

log = structlog.get_logger(__name__)

# Seconds that a request waits for the log's flock, at most; others hold it to write a line or to
# store the last few. Larger: requests wait longer behind a stopped process before they get a 503.
# Smaller: requests are refused while a slow disk writes the lines before theirs.
LOCK_SECONDS = 1.0
# Seconds between two attempts to take the flock. Larger: requests wait longer after it is free.
# Smaller: waiting costs more CPU.
LOCK_AGAIN_SECONDS = 0.002
# Lines, and bytes of lines, that the drainer reads and stores at once. Larger: fewer transactions,
# more memory, and more lines are stored one by one if one of them fails. Smaller: slower draining.
# A line of more than CHUNK_BYTES is a chunk by itself.
CHUNK_LINES = 256
CHUNK_BYTES = 4 * 1024 * 1024
# Bytes read at once, from the end of the log, in search of the last newline. Usually the first read
# finds it. Larger: each append reads more. Smaller: more reads behind a long torn line.
BLOCK = 64 * 1024

# One thread of this process at a time tries to take the flock: the others wait without polling.
_appending = threading.Lock()


@runtime.kept
def other_hosts() -> list[str]:
    """Return the other hosts with living web processes, as this process saw them last."""
    return []


def is_on() -> bool:
    return bool(settings.SPOOL_DIR)


def has_lines() -> bool:
    """Return True if the log is not empty. It takes one look at its size."""
    try:
        return is_on() and os.stat(path("log")).st_size > 0
    except FileNotFoundError:
        return False


def path(name: str) -> Path:
    """Return the path of ``log``, ``drain`` or ``bad``."""
    return Path(settings.SPOOL_DIR, name)


# ---------------------------------------------------------------- appending


def append(request: ParsedRequest, *, only_behind: bool = False) -> bool:
    """Return True once the request is on the disk. Raises ``NotStored``.

    ``only_behind``: append only behind other lines; if the log is empty, return False and write
    nothing.
    """
    if others := other_hosts():
        raise NotStored(f"the spool is for one host, and {', '.join(others)} is alive")
    line = make_line(request)
    try:
        return _append(line, only_behind)
    except OSError as error:
        raise NotStored(f"the spool cannot take it: {errno.errorcode.get(error.errno or 0, 'OSError')}") from error


def _append(line: bytes, only_behind: bool) -> bool:
    """Write the line under the flock, and fsync without it, so that fsyncs can overlap."""
    prepare(settings.SPOOL_DIR)
    with _open("log") as log:
        with _lock(log):
            end = _cut_torn_end(log)
            if only_behind and not end:
                return False
            _write(log, line, end)
        failpoint("P1")
        os.fsync(log)
    failpoint("P2")
    return True


def _cut_torn_end(descriptor: int) -> int:
    """Cut off what follows the last whole line. Return where that line ends."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - BLOCK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(descriptor, end)
        log.warning("the torn end of the spool was cut off", offset=end, size=size - end)
    return end


def _write(log: int, line: bytes, end: int) -> None:
    """Write the whole line at ``end``, or nothing: after an error its bytes are cut off again."""
    written = 0
    try:
        while written < len(line):
            written += os.pwrite(log, line[written:], end + written)
    except OSError:
        os.ftruncate(log, end)
        raise


@functools.cache
def prepare(folder: str) -> None:
    """Make the folder and its files. Raises ``OSError``, also if it is not ours alone.

    Others could delete accepted requests, or put links to other files in their place. Both folders
    are synced: else a power cut could take away the log with the lines in it.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    about = os.stat(folder)
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "the folder of the spool is open to others")
    for name in ("log", "drain", "bad"):
        os.close(os.open(Path(folder, name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    for to_sync in (Path(folder), Path(folder).parent):
        descriptor = os.open(to_sync, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _open(name: str, flags: int = os.O_RDWR) -> Iterator[int]:
    """Yield a descriptor of the file, closed at the end of the block; closing ends its flock."""
    descriptor = os.open(path(name), flags | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock(log: int) -> Iterator[None]:
    """Hold the log's flock. Raises ``NotStored`` after ``LOCK_SECONDS``."""
    until = time.monotonic() + LOCK_SECONDS
    if not _appending.acquire(timeout=LOCK_SECONDS):
        raise NotStored("the spool is held")
    try:
        while not _flock(log):
            if time.monotonic() > until:
                raise NotStored("the spool is held")
            time.sleep(LOCK_AGAIN_SECONDS)
        try:
            yield
        finally:
            fcntl.flock(log, fcntl.LOCK_UN)
    finally:
        _appending.release()


def _flock(descriptor: int) -> bool:
    """Try to take the file's flock. Return False if somebody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---------------------------------------------------------------- draining


@contextlib.contextmanager
def drainer() -> Iterator[bool]:
    """Yield True if this process may drain the log until the end of the block, else False."""
    prepare(settings.SPOOL_DIR)
    with _open("drain") as descriptor:
        yield _flock(descriptor)


def read(offset: int) -> tuple[list[Line], int, bool]:
    """Return a chunk of waiting lines from ``offset`` on, the next offset, and True at the end.

    A torn line counts as the end: somebody is writing it, or the next ``append`` cuts it off.
    """
    lines: list[Line] = []
    size = 0
    with path("log").open("rb") as log:
        log.seek(offset)
        while len(lines) < CHUNK_LINES and size < CHUNK_BYTES:
            line = log.readline()
            if not line.endswith(b"\n"):
                return lines, offset, True
            if not is_stored(line):
                lines.append(read_line(offset, line))
                size += len(line)
            offset += len(line)
    return lines, offset, False


def mark(lines: Sequence[Line]) -> None:
    """Mark lines as stored, without fsync: if a mark is lost, its line is stored as a duplicate."""
    with _open("log") as log:
        for line in lines:
            os.pwrite(log, line.stored, line.offset)


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Keep everybody from appending until the end of the block. Raises ``NotStored``."""
    with _open("log") as log, _lock(log):
        yield


def truncate() -> None:
    """Empty the log. Call it only inside ``closed``, with every line stored."""
    with _open("log") as log:
        os.ftruncate(log, 0)


def set_aside(line: Line) -> None:
    """Keep a line that cannot be opened in the file ``bad``, for people; mark it as stored."""
    with _open("bad", os.O_WRONLY | os.O_APPEND) as bad:
        os.write(bad, line.sealed + b"\n")
        os.fsync(bad)
    mark([line])
