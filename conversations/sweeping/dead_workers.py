"""Recovers what a dead worker left behind: its lanes and replies are due at once, its locks are
freed.

A sweeper learns of a death from a heartbeat that stopped. The process that the supervisor starts in
the dead one's place learns of it at once, from ``PREDECESSOR_PID``.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import structlog

from conversations import registry, runtime
from conversations.contracts import Work
from conversations.delivering import results
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.lanes import lock
from conversations.postgres import committer, database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Stream, as_json

log = structlog.get_logger(__name__)

# After a sender's death, this many lanes' locks are examined, per channel and in all. Larger: more
# Redis calls; smaller: more of a large sender's lanes wait for the sweeper, 10 s at most.
PER_CHANNEL, ALL_IN = 500, 5_000

PREDECESSOR = """SELECT incarnation, beat FROM worker
                  WHERE host = %(host)s AND pid = %(pid)s AND NOT dead AND incarnation <> %(incarnation)s"""


def recover(writer: committer.Committer, incarnation: uuid.UUID, beat: int) -> None:
    """Make a dead worker's lanes due, mark it dead, free its locks, settle its replies.

    The lanes come first: if this process dies before the mark, the next sweeper does all of it
    again. ``beat`` is the number of the last heartbeat: if the worker has sent another meanwhile,
    it lives, and its locks and replies are left alone.
    """
    rows = runtime.read(
        "SELECT kind, running FROM worker WHERE incarnation = %(incarnation)s AND beat = %(beat)s AND NOT dead",
        {"incarnation": incarnation, "beat": beat},
    )
    if not rows:
        return
    kind, running = rows[0][0], sorted(rows[0][1])
    log.error("a worker died", incarnation=str(incarnation), kind=kind, lanes=len(running))
    if running:
        runtime.execute(sql("revive_sending" if kind == Work.SEND else "revive_lanes"), {"ids": running})
    failpoint("S3")
    locked = sorted({*running, *(_delivering() if kind == Work.SEND else ())})
    if not runtime.execute(sql("mark_dead"), {"incarnation": incarnation, "beat": beat}):
        return  # it has sent a heartbeat meanwhile: it lives, and goes on with its replies
    freed = lock.free(Work.SEND if kind == Work.SEND else Work.HANDLE, str(incarnation), locked)
    if kind == Work.SEND and freed:
        runtime.execute(sql("revive_sending"), {"ids": freed})
    settle(writer, incarnation)


def _delivering() -> list[int]:
    """Return lanes that a sender may have taken since its last heartbeat, which lists the others.

    Their Redis locks, which outlive the sender by a few seconds, tell which ones it had. Without
    this, a wake that met such a lock is lost, and the lane waits 10 s for the sweeper.
    """
    return [row[0] for row in runtime.read(sql("find_delivering"), {"per_channel": PER_CHANNEL, "all_in": ALL_IN})]


class ClaimedStream(Stream[uuid.UUID, list[int]]):
    """Settles the replies that dead senders claimed; an item is the sender's incarnation.

    Nobody knows whether the platform took them, unless it said so in a status. Each becomes sent,
    failed, pending (sent again), parked, cancelled or unknown, see ``settle_claimed.sql``.
    """

    name = "claimed"
    patient = False

    def lane(self, item: uuid.UUID) -> uuid.UUID:
        return item

    def write(self, connection: psycopg.Connection[Any], items: Sequence[uuid.UUID]) -> Sequence[list[int]]:
        settled = []
        for claim in items:
            values = {
                "claim": claim,
                "attempts": results.ATTEMPTS,
                "key_life": as_json(registry.key_lives()),
                "reporting": registry.reporting_keys(),
                "status_wait": results.STATUS_SECONDS,
            }
            statements = {"lock": (sql("lock_claimed"), values), "settle": (sql("settle_claimed"), values)}
            settled.append([row[0] for row in database.transaction(connection, statements)["settle"]])
        return settled


CLAIMED = ClaimedStream()


def settle(writer: committer.Committer, claim: uuid.UUID) -> None:
    """Settle the replies that the dead sender ``claim`` left, and free their lanes' locks."""
    settled = writer.write(CLAIMED, claim, timeout=5.0)
    lock.free(Work.SEND, str(claim), settled)


def recover_predecessor(writer: committer.Committer, incarnation: uuid.UUID) -> None:
    """Recover what this process's predecessor left, if the supervisor says that one died."""
    pid = os.environ.get("PREDECESSOR_PID")
    if not pid or int(pid) == os.getpid():
        return
    try:
        dead = {"host": platform.node(), "pid": int(pid), "incarnation": incarnation}
        for row in runtime.read(PREDECESSOR, dead):
            recover(writer, *row)
    except (psycopg.Error, CoreError) as error:
        log.warning("predecessor left to the sweeper", error=type(error).__name__)
