"""Named points where a test can stop, kill or break a process. Production cannot switch them on.

``FAILPOINTS`` (read by settings only if ``LOCAL`` is set) is a list
``point=action[:argument][@hit][!]`` joined by ``;``. ``@hit``: act only the nth time, from 1.
``!``: act once, also if the process is started again. Actions:

    kill    SIGKILL to this process                 raise   psycopg.OperationalError
    stop    SIGSTOP to this process                 drop    cut connections to Postgres and Redis
    sleep   this thread sleeps ``argument`` s       exit    SystemExit

Before each action, a line ``point action pid`` is written to ``failpoints.txt`` in ``DATA_DIR``.

    W1  signature verified, before BEGIN            W2  after INSERT, before COMMIT
    W3  after COMMIT, before publishing             W4  stored and handed to the publishing thread, before the answer
    T0  a task came, before it takes hints
    T1  hints were taken                            T2  after the lock
    T3  heads read, before the bot                  T4  after the bot, before BEGIN
    T5  in the transaction, before COMMIT           T6  after COMMIT, before the next hint
    T7  before the lock is released                 T8  after that, before the hint is acknowledged
    D1  before the intent's COMMIT                  D2  after it, before the platform is called
    D3  after the call, before the result's COMMIT  D4  after it, before the next
    S1  the sweeper claimed, before any wake        S2  after one of its wakes
    S3  it buries a worker: lanes revived, before the row is marked
    P1  in the spool, before its fsync              P2  after it, before the answer
    P3  stored from the spool, before it is marked
    R1  before locks are renewed                    M1  before each statement of a migration; when a process starts
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
from django.conf import settings


class Word(NamedTuple):
    """The instruction of ``FAILPOINTS`` for one point."""

    action: str
    argument: str
    hit: int
    once: bool


_hits: collections.Counter[str] = collections.Counter()
_counting = threading.Lock()


def _read(words: str) -> dict[str, Word]:
    """Read ``FAILPOINTS``: point -> instruction. A ``hit`` of 0 stands for every hit."""
    points = {}
    for word in filter(None, words.split(";")):
        point, _, action = word.removesuffix("!").partition("=")
        action, _, hit = action.partition("@")
        action, _, argument = action.partition(":")
        points[point.strip()] = Word(action, argument, int(hit or 0), word.endswith("!"))
    return points


_points = _read(settings.FAILPOINTS)


def failpoint(point: str, first: Callable[[], object] = lambda: None) -> None:
    """Do what a test asked for at ``point``, else nothing. ``first`` runs only before an action."""
    if _points and point in _points:
        _act(point, _points[point], first)


def _act(point: str, word: Word, first: Callable[[], object]) -> None:
    """Count the hit, record it in ``failpoints.txt``, then act: after a kill it is too late."""
    with _counting:
        _hits[point] += 1
        if (word.hit and _hits[point] != word.hit) or (word.once and _was_done(point)):
            return
        first()
        with _record().open("a") as file:
            file.write(f"{point} {word.action} {os.getpid()}\n")
    match word.action:
        case "kill":
            signal.pthread_kill(threading.get_ident(), signal.SIGKILL)
        case "stop":
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        case "sleep":
            time.sleep(float(word.argument or 1))
        case "raise":
            raise psycopg.OperationalError(f"failpoint {point}")
        case "drop":
            _drop_connections()
        case "exit":
            raise SystemExit(1)


def _record() -> Path:
    return settings.DATA_DIR / "failpoints.txt"


def _was_done(point: str) -> bool:
    """Return True if this or an earlier life of the process acted at ``point``."""
    return _record().exists() and any(line.startswith(f"{point} ") for line in _record().read_text().splitlines())


def _drop_connections() -> None:
    """Cut this process's connections to Postgres and Redis, as a network does."""
    servers = {urlsplit(url).port for url in (settings.DATABASE_URL, settings.REDIS_URL)}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM) as connection:
            peer = connection.getpeername()
            if isinstance(peer, tuple) and peer[1] in servers:
                connection.shutdown(socket.SHUT_RDWR)
