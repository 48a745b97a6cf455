"""The ORM of bots: a connection goes back to its pool once no query and no transaction needs it.

Django keeps a thread's connection from the first query until somebody closes it. A process has
``BOT_CONNECTIONS`` of them for up to ``TURN_THREADS`` turns: bots that make one query and then wait
for a slow service would keep all others from the database.
"""

from __future__ import annotations

import weakref
from typing import Any

from django.db.backends.postgresql import base
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
from django.db.utils import OperationalError
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolTimeout

# Of a broken connection the status is unknown: the pool drops it.
IN_USE = TransactionStatus.ACTIVE, TransactionStatus.INTRANS, TransactionStatus.INERROR


class NoConnection(OperationalError):
    """No connection of the pool became free in time. A pool that a bot made itself does not raise it."""


class _Returning(CursorWrapper):
    """A cursor that asks, when it is closed, whether its connection is still needed."""

    db: DatabaseWrapper

    def __init__(self, cursor: Any, db: DatabaseWrapper) -> None:
        super().__init__(cursor, db)
        db.open_cursors.add(self)

    def close(self) -> None:
        try:
            self.cursor.close()
        finally:
            self.db.open_cursors.discard(self)
            self.db.return_unused()


class _ReturningDebug(_Returning, CursorDebugWrapper):
    """The same where ``DEBUG`` keeps a list of all queries."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A thread's way to the database. It has a connection from the pool only while it needs one.

    It needs one while a cursor is open (a server-side one, too), inside ``atomic``, inside a
    transaction that SQL began, and while autocommit is off. A cursor that nobody closes keeps it
    until the first query after it is garbage, or the turn ends.
    What belongs to a session (``SET``, advisory locks, temporary tables) lasts as long as that.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.open_cursors: weakref.WeakSet[CursorWrapper] = weakref.WeakSet()
        self._connecting = False

    def connect(self) -> None:
        """Take a connection from the pool. Raises ``NoConnection`` if none becomes free."""
        self._connecting = True
        try:
            super().connect()
        except PoolTimeout as error:
            raise NoConnection(*error.args) from error
        finally:
            self._connecting = False

    def make_cursor(self, cursor: Any) -> CursorWrapper:
        return _Returning(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> CursorDebugWrapper:
        return _ReturningDebug(cursor, self)

    def get_autocommit(self) -> bool:
        """Return whether autocommit is on. Takes no connection for that: a new one begins with it."""
        if self.connection is None and not self.in_atomic_block:
            return bool(self.settings_dict["AUTOCOMMIT"])
        return super().get_autocommit()

    def set_autocommit(self, autocommit: bool, *args: Any, **options: Any) -> None:
        """Begin or end a transaction. After the outermost ``atomic``, return the connection."""
        super().set_autocommit(autocommit, *args, **options)
        self.return_unused()

    def return_unused(self) -> None:
        """Return the connection to the pool, if nothing needs it."""
        is_used = self._connecting or self.open_cursors or self.in_atomic_block or not self.autocommit
        if self.connection is not None and not is_used and self.connection.pgconn.transaction_status not in IN_USE:
            self.close()
