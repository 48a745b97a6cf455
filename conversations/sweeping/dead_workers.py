"""What a dead worker leaves behind: its lanes and replies are due at once, its locks are freed.

Who died is seen by a sweeper, from a beat that stopped; or told by the supervisor to the process that it starts in its
place, which need not wait for that.
"""

from __future__ import annotations

import os
import platform
import uuid

import psycopg
import structlog

from conversations.contracts import Work
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.lanes import lock
from conversations.postgres import committer, database
from conversations.postgres.sql_files import sql
from conversations.sweeping.claimed_stream import CLAIMED

log = structlog.get_logger(__name__)

PER_CHANNEL, ALL_IN = 500, 5_000  # lanes whose locks are looked at when a sender died

PREDECESSOR = """SELECT incarnation, beat FROM worker
                  WHERE host = %(host)s AND pid = %(pid)s AND NOT dead AND incarnation <> %(incarnation)s"""


def bury(writer: committer.Committer, incarnation: uuid.UUID, beat: int) -> None:
    """Its lanes first: whoever of us dies in the middle leaves the row for the next one."""
    rows = database.read(
        "SELECT kind, running FROM worker WHERE incarnation = %(incarnation)s AND beat = %(beat)s AND NOT dead",
        {"incarnation": incarnation, "beat": beat},
    )
    if not rows:
        return
    kind, running = rows[0][0], sorted(rows[0][1])
    log.error("a worker died", incarnation=str(incarnation), kind=kind, lanes=len(running))
    if running:
        database.execute(sql("revive_sending" if kind == Work.SEND else "revive_lanes"), {"ids": running})
    failpoint("S3")
    locked = sorted({*running, *(_delivering() if kind == Work.SEND else ())})
    if not database.execute(sql("mark_dead"), {"incarnation": incarnation, "beat": beat}):
        return  # it beat meanwhile: it lives, and what it sends is its own
    freed = lock.free(Work.SEND if kind == Work.SEND else Work.HANDLE, str(incarnation), locked)
    if kind == Work.SEND and freed:
        database.execute(sql("revive_sending"), {"ids": freed})
    settle(writer, incarnation)


def _delivering() -> list[int]:
    """A sender tells of its lanes only when it beats: those that it took since are known by its locks, while they live
    (a process that takes its place comes before that). A wake that met one was in vain, and the next is 10 s away."""
    return [row[0] for row in database.read(sql("find_delivering"), {"per_channel": PER_CHANNEL, "all_in": ALL_IN})]


def settle(writer: committer.Committer, claim: uuid.UUID) -> None:
    """Replies in sending that bear the name of somebody who is gone."""
    settled = writer.write(CLAIMED, claim, timeout=5.0)
    lock.free(Work.SEND, str(claim), settled)


def bury_predecessor(writer: committer.Committer, incarnation: uuid.UUID) -> None:
    """The process in whose place our supervisor started this one; its number cannot be anybody else's here yet."""
    pid = os.environ.get("PREDECESSOR_PID")
    if not pid or int(pid) == os.getpid():
        return
    try:
        dead = {"host": platform.node(), "pid": int(pid), "incarnation": incarnation}
        for row in database.read(PREDECESSOR, dead):
            bury(writer, *row)
    except (psycopg.Error, CoreError) as error:
        log.warning("the one before is left to the sweeper", error=type(error).__name__)
