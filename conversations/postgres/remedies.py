"""What each error means for one item that could not be written alone: the only list of it."""

from __future__ import annotations

import enum

import psycopg

from conversations.errors import CoreError
from conversations.postgres.backlog import AnyStream

# Times that an item alone must take too long or break a limit of Postgres before it counts as the
# item's fault. Larger: it delays the others for longer; smaller: a database that is slow for a
# moment costs an item its content.
TOO_LARGE_TRIES = 3


class Remedy(enum.Enum):
    """What to do about an item that could not be written alone."""

    RETRY = "write it again at once: another transaction wrote the same key meanwhile, and is visible now"
    MEND = "write what the stream offers instead; if it offers nothing, fail with the database's error"
    WAIT = "requeue it: the obstacle is not the item, and no caller would bring it again"
    FAIL = "fail with NotStored: the caller brings it again (a webhook is answered 503)"


def classify(error: Exception, stream: AnyStream, tries: int, disconnected: bool) -> Remedy:
    """Return the remedy for an item that was refused alone for the ``tries``-th time.

    ``disconnected``: the connection is lost, so the error says nothing about the item.
    """
    wait = Remedy.WAIT if stream.patient else Remedy.FAIL
    match error:
        case psycopg.errors.LockNotAvailable():  # a migration holds the table, for two seconds at most
            return Remedy.WAIT
        case _ if disconnected:
            return wait
        case psycopg.errors.UniqueViolation() if tries == 1:
            return Remedy.RETRY
        case psycopg.DataError() | psycopg.IntegrityError():  # SQLSTATE classes 22 and 23
            return Remedy.MEND
        case UnicodeError() | OverflowError() | RecursionError():  # the item cannot even be encoded
            return Remedy.MEND
        case psycopg.Error() if stream.patient and tries >= TOO_LARGE_TRIES and is_too_large(error, stream):
            return Remedy.MEND
        case psycopg.Error() | CoreError():
            return wait
        case _:  # a bug of ours; trying a patient item again would hold up its lane for ever
            return Remedy.MEND if stream.patient else Remedy.FAIL


def is_too_large(error: Exception, stream: AnyStream) -> bool:
    """Return True if the item broke a limit of Postgres (class 54), or may be why it took too long."""
    states = ("54",) if stream.small else ("54", "57014")
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(states)
