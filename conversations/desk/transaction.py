"""The transaction of a verb, in one pipeline, and the wake after COMMIT.

It locks the lane if it is still as the person saw it, acts, and writes the audit entry.

**Invariant:** a verb that comes too late changes nothing and raises ``LaneMoved``, which says what
is there now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from django.contrib.auth.models import User
from django.db import connection

from conversations.errors import Busy, CoreError, LaneMoved
from conversations.models import Conversation
from conversations.postgres import database
from conversations.postgres.database import Row, Statement
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.waking import wake

# Attempts at a transaction while the lane is locked; each waits for lock_timeout (500 ms). Larger:
# the page waits longer. Smaller: staff are told more often that the conversation is busy.
TRIES = 3
# Longest note or reason; the rest is cut off. Larger: longer rows in the audit.
NOTE_CHARACTERS = 2_000
# Values for ``lock.sql`` that accept a lane in any state. An act replaces those that it depends on.
ANYTHING = dict.fromkeys(("epoch", "next_sequence", "last_reply_sequence", "mode", "paused"))

Statements = dict[str, Statement]
Rows = dict[str, list[Row]]


def act(
    expected: Mapping[str, Any],
    staff: User,
    verb: str,
    steps: Statements,
    *,
    subject: str = "",
    reason: str = "",
    refused: type[CoreError] | None = None,
) -> Rows:
    """Lock the lane where ``expected`` holds, run ``steps``, audit, COMMIT and wake.

    Returns the rows of each step. Raises ``LaneMoved`` where nothing was done; ``refused``, if
    given, where the lane was as expected all the same.
    """
    lock = step("lock", **{**ANYTHING, **expected})
    rows = commit({"lock": lock, **steps, "audit": audit_step(staff, verb, subject, reason)})
    if not rows["audit"]:
        if rows["lock"] and refused:
            raise refused
        raise LaneMoved(f"it changed meanwhile: {_present_state(expected['conversation'])}")
    _wake(expected["conversation"], tenant_id=rows["lock"][0][2])
    return rows


def audit_step(staff: User, verb: str, subject: str = "", reason: str = "") -> Statement:
    """Return the statement that writes the audit entry.

    It writes none, and returns no row, if a step before it found nothing to do. So ``act``
    learns it.
    """
    return step("audit", staff=staff.pk, verb=verb, subject=subject, reason=clean_note(reason))


def commit(statements: Statements) -> Rows:
    """Run one pipeline on this request's connection, up to ``TRIES`` times if the lane is locked.

    Raises ``Busy`` if it stays locked, ``LaneMoved`` if the copy of a message exists already.
    """
    for last in (*[False] * (TRIES - 1), True):
        try:
            return database.transaction(_own_connection(), statements)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if last:
                raise Busy("somebody else holds this conversation just now; try again") from None
        except psycopg.errors.UniqueViolation:
            raise LaneMoved("it changed meanwhile: somebody has replayed this message") from None
    raise AssertionError("unreachable")


def step(name: str, **values: Any) -> Statement:
    """Return the statement of the file ``name`` with its values. Raises ``KeyError``."""
    parameters: Mapping[str, Any] = values
    return sql(name), parameters


def clean_note(text: str) -> str:
    """Return what a person wrote, storable and cut to ``NOTE_CHARACTERS``."""
    return clean_text(text.strip(), NOTE_CHARACTERS)


def _wake(conversation_id: int, tenant_id: int) -> None:
    """Publish hints for handling and sending.

    Without them the lane waits for the sweeper, some seconds.
    """
    wake.handle([conversation_id], tenant_id)
    wake.send([conversation_id], tenant_id)


def _present_state(conversation_id: int) -> str:
    """Describe the lane as it is now, for a person whose act came too late."""
    lane = Conversation.objects.filter(pk=conversation_id).first()
    if lane is None:
        return "this conversation is gone"
    who = "a person answers" if lane.mode == Conversation.Mode.HUMAN else "the bot answers"
    head = f"message {lane.next_sequence} is next" if lane.next_sequence <= lane.last_sequence else "nothing is waiting"
    return f"{who}{', it is paused' if lane.paused_at else ''}, {head}"


def _own_connection() -> psycopg.Connection[Row]:
    """Return this request's connection for a transaction of ours.

    Raises ``RuntimeError`` inside ``atomic``: the caller's rollback would undo a verb that was
    reported as done.
    """
    if connection.in_atomic_block:
        raise RuntimeError("a verb is a transaction of its own")
    connection.ensure_connection()
    return connection.connection
