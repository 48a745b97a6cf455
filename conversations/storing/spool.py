"""The spool: a file on this host's lasting disk that takes webhooks while Postgres does not. Off without ``SPOOL_DIR``.

    log     a line per accepted request: a mark (``+`` waits, ``-`` stored), milliseconds, a space, the sealed
            request, a newline
    drain   who holds its flock drains (``drain.py``); one process at a time
    bad     lines that could not be opened, kept for people

**Invariant:** what was accepted before another request of the same person came is stored before it, by whatever
way each of them went, through whatever web process of this host.

Why no lock is needed in the usual case. A request begins by asking ``holds()``, which looks at the log's size. The log
becomes empty at one place only, by one truncation, made under the log's flock after every line in it was committed. So:

1. The log is empty: whatever was accepted before this request began is committed, through whichever process.
   Storing directly comes after it. What is appended meanwhile was not accepted when this request began: the two
   are concurrent, and any order is right. A process that is stopped between the look and its COMMIT changes nothing.
2. The log holds something: the request is appended, behind all that was accepted before. Lines are stored in their
   order, so it comes after them; and every later request sees its line, or that the line is committed.
3. Storing directly failed or its outcome is unknown: the request is appended. If its COMMIT lands all the same, before
   or after its line is stored, de-duplication keeps one of the two; later requests come after its line.

Appending: flock on the log, cut a torn end (bytes after the last newline: a writer died in the middle, nobody was
answered), write the line, let the flock go, fsync, and only then 200. A write that fails is cut off again: 503. A
request that found the log holding something and gets the flock when it is empty stores directly instead
(``only_behind``): else the threads that waited for the flock would fill the log again for ever.

Draining: the drainer reads whole lines without the flock, stores them in order, and marks them in place; it holds the
flock only for the last few, so that the log does become empty under load: stores them, truncates. A drainer that is
killed between COMMIT and mark leaves lines that the next one stores once more: duplicates. Its flock ends with it. A
transaction of it that is still on its way holds whole lines in their order: whatever lands, lands in order.

One host: another one would store directly what comes after lines of ours. While another host's web process is
connected to the database, nothing is appended (503), and ``check`` refuses the setting.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import errno
import fcntl
import functools
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from django.conf import settings

from conversations import crypto
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Entry,
    Kind,
    Note,
    Parsed,
    Sender,
    StatusUpdate,
    Unusable,
    WebhookRequest,
)
from conversations.errors import NotStored
from conversations.failpoints import failpoint

PLACE = "spool"
WAITS, DONE = b"+", b"-"
LOCK_SECONDS = 1.0  # for the flock, which is held for a write, or for storing the last few lines
LOCK_AGAIN_SECONDS = 0.002
CHUNK_LINES = 256
CHUNK_BYTES = 4 * 1024 * 1024
BLOCK = 64 * 1024

other_hosts: list[str] = []  # with living web processes, as ``drain`` saw it last

_appending = threading.Lock()  # so that one thread per process asks for the flock


class Request(NamedTuple):
    """One accepted request, as ``intake`` stores it."""

    channel: ChannelConfig
    parsed: Sequence[Parsed]
    request: WebhookRequest


class Line(NamedTuple):
    """One line that waits."""

    offset: int
    at: float
    sealed: bytes


def is_on() -> bool:
    return bool(settings.SPOOL_DIR)


def holds() -> bool:
    """Whether anything is in the log; one look at its size."""
    if not settings.SPOOL_DIR:
        return False
    try:
        return os.stat(_path("log")).st_size > 0
    except FileNotFoundError:
        return False


def _path(name: str) -> Path:
    return Path(settings.SPOOL_DIR, name)


# ---------------------------------------------------------------- appending


def append(request: Request, *, only_behind: bool = False) -> bool:
    """True: it is on the disk. False: ``only_behind``, and there was nothing to be behind. Else ``NotStored``."""
    if other_hosts:
        raise NotStored(f"the spool is for one host, and {', '.join(other_hosts)} is alive")
    line = b"%b%013d %b\n" % (WAITS, time.time() * 1000, seal(request))
    try:
        return _append(line, only_behind)
    except OSError as error:
        raise NotStored(f"the spool cannot take it: {errno.errorcode.get(error.errno or 0, 'OSError')}") from error


def _append(line: bytes, only_behind: bool) -> bool:
    prepare(settings.SPOOL_DIR)
    with _opened("log") as log:
        with _locked(log):
            end = _cut_torn(log)
            if only_behind and not end:
                return False
            _write(log, line, end)
        failpoint("P1")
        os.fsync(log)
    failpoint("P2")
    return True


def _cut_torn(log: int) -> int:
    """The end of the last whole line; what is behind it is cut off."""
    size = end = os.fstat(log).st_size
    while end:
        start = max(0, end - BLOCK)
        newline = os.pread(log, end - start, start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(log, end)
    return end


def _write(log: int, line: bytes, end: int) -> None:
    written = 0
    try:
        while written < len(line):
            written += os.pwrite(log, line[written:], end + written)
    except OSError:
        os.ftruncate(log, end)
        raise


@functools.cache
def prepare(folder: str) -> None:
    """Make the folder and its files, durably. Raises ``OSError``."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in ("log", "drain", "bad"):
        os.close(os.open(Path(folder, name), os.O_RDWR | os.O_CREAT, 0o600))
    for made in (Path(folder), Path(folder).parent):
        descriptor = os.open(made, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened(name: str, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(_path(name), flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(log: int) -> Iterator[None]:
    """The log's flock. Raises ``NotStored`` where somebody holds it too long (a process that is stopped)."""
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
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---------------------------------------------------------------- draining


@contextlib.contextmanager
def drainer() -> Iterator[bool]:
    """Whether this process is the one that drains, until the end of the block."""
    prepare(settings.SPOOL_DIR)
    with _opened("drain") as descriptor:
        yield _flock(descriptor)


def read(offset: int) -> tuple[list[Line], int, bool]:
    """Lines that wait, from ``offset`` on; where the next ones begin; whether that is the end of the log."""
    lines: list[Line] = []
    size = 0
    with _path("log").open("rb") as log:
        log.seek(offset)
        while len(lines) < CHUNK_LINES and size < CHUNK_BYTES:
            line = log.readline()
            if not line.endswith(b"\n"):
                return lines, offset, True
            if not line.startswith(DONE):
                lines.append(_line(offset, line))
                size += len(line)
            offset += len(line)
    return lines, offset, False


def _line(offset: int, line: bytes) -> Line:
    head, _, sealed = line[1:-1].partition(b" ")
    return Line(offset, int(head) / 1000 if head.isdigit() else 0.0, sealed)


def mark(lines: Sequence[Line]) -> None:
    """They are stored. A mark that is lost with the machine costs a duplicate, nothing else."""
    with _opened("log") as log:
        for line in lines:
            os.pwrite(log, DONE, line.offset)


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Nobody appends until the end of the block. Raises ``NotStored``."""
    with _opened("log") as log, _locked(log):
        yield


def empty() -> None:
    """Only inside ``closed``, with every line stored."""
    with _opened("log") as log:
        os.ftruncate(log, 0)


def set_aside(line: Line) -> None:
    """A line that nobody can open: kept as it is, beside the others."""
    with _opened("bad", os.O_WRONLY | os.O_APPEND) as bad:
        os.write(bad, line.sealed + b"\n")
        os.fsync(bad)
    mark([line])


# ---------------------------------------------------------------- a request as bytes

_KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in (Entry, StatusUpdate, Note, Unusable)}


def seal(request: Request) -> bytes:
    """Everything that storing reads, and no credentials. Any text passes, lone surrogates too."""
    channel, parsed, incoming = request
    value = {
        "channel": msgspec.to_builtins(msgspec.structs.replace(channel, credentials={})),
        "parsed": [[type(thing).__name__, msgspec.to_builtins(thing)] for thing in parsed],
        "request": {**msgspec.to_builtins(incoming), "url": ""},
    }
    return crypto.seal(json.dumps(value), PLACE).encode()


def unseal(line: Line) -> Request:
    """The same again, value by value: nothing is checked or converted. Raises whatever a bad line makes it raise."""
    value = json.loads(crypto.unseal(line.sealed.decode(), PLACE))
    incoming = {**value["request"], "body": base64.b64decode(value["request"]["body"])}
    parsed = [_made(_KINDS[name], fields) for name, fields in value["parsed"]]
    return Request(_made(ChannelConfig, value["channel"]), parsed, _made(WebhookRequest, incoming))


def _made(kind: Any, fields: Mapping[str, Any]) -> Any:
    """What another version of ours knew besides is left out."""
    made = {name: _MAKERS[kind, name](value) if (kind, name) in _MAKERS else value for name, value in fields.items()}
    return kind(**{name: made[name] for name in kind.__struct_fields__ if name in made})


_MAKERS: Mapping[tuple[Any, str], Any] = {
    (Entry, "kind"): Kind,
    (Entry, "sender"): lambda value: _made(Sender, value),
    (Entry, "attachments"): lambda value: tuple(_made(Attachment, attachment) for attachment in value),
    (Entry, "sent_at"): dt.datetime.fromisoformat,
    (Sender, "aliases"): tuple,
    (Unusable, "raw"): base64.b64decode,
}


# ---------------------------------------------------------------- what is said about it


class Tally:
    """How many lines wait, and since when. Every line is read twice, once when it comes and once when it is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget(b"")

    def _forget(self, head: bytes) -> None:
        self._head, self._first, self._end, self._count = head, 0, 0, 0

    def look(self) -> dict[str, Any]:
        """``count``, ``oldest_seconds`` (null when empty), and ``bad``: lines that nobody could open."""
        with self._lock:
            if not holds():
                return {"count": 0, "oldest_seconds": None, "bad": _count_bad()}
            with _path("log").open("rb") as log:
                self._follow(log)
                oldest = self._pass_done(log)
            age = None if oldest is None else round(max(0.0, time.time() - oldest), 1)
            return {"count": self._count, "oldest_seconds": age, "bad": _count_bad()}

    def _follow(self, log: Any) -> None:
        head = log.read(BLOCK // 1024)[1:]  # of another log, when it was emptied meanwhile
        if head != self._head:
            self._forget(head)
        log.seek(self._end)
        while (line := log.readline()).endswith(b"\n"):
            self._end += len(line)
            self._count += 1

    def _pass_done(self, log: Any) -> float | None:
        log.seek(self._first)
        while self._first < self._end:
            line = log.readline()
            if not line.startswith(DONE):
                return _line(self._first, line).at
            self._first += len(line)
            self._count -= 1
        return None


def _count_bad() -> int:
    try:
        return _path("bad").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


tally = Tally()
