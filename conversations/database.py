"""The core's own connections: plain psycopg, autocommit, one owner each. Django's ORM has its small pool beside them.

The three batched streams write through ``conversations.committer``; ``read`` is the process's one reader.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from django.conf import settings
from psycopg.types.json import set_json_dumps, set_json_loads

import msgspec

CONNECT_SECONDS = 3
# What a frozen or lost client may hold up, at most (milliseconds); SET LOCAL, which PgBouncer allows.
LIMITS = (
    "SELECT set_config('lock_timeout', '500', true), set_config('statement_timeout', '2000', true),"
    " set_config('idle_in_transaction_session_timeout', '2000', true)"
)
Row = tuple[Any, ...]
Statement = tuple[str, Sequence[Any]]

set_json_dumps(lambda value: msgspec.json.encode(value).decode())
set_json_loads(msgspec.json.decode)


def connect(name: str) -> psycopg.Connection[Row]:
    """A new autocommit connection. Raises ``psycopg.OperationalError`` within a few seconds."""
    connection = psycopg.connect(
        settings.DATABASE_URL,
        autocommit=True,
        application_name=name,
        connect_timeout=CONNECT_SECONDS,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
    if not settings.PREPARED_STATEMENTS:
        connection.prepare_threshold = None
    return connection


def transaction(connection: psycopg.Connection[Row], statements: Iterable[Statement]) -> list[list[Row]]:
    """Run ``statements`` as one transaction in one pipeline; the rows of each.

    BEGIN, the limits, the statements and COMMIT travel together, so that no client round trip lies
    between the first row lock and the commit. Raises the first error; then nothing was written, or,
    when the connection broke, it is unknown.
    """
    try:
        with connection.pipeline():
            connection.execute("BEGIN")
            connection.execute(LIMITS)
            cursors = [connection.execute(query, params, prepare=True) for query, params in statements]
            commit = connection.execute("COMMIT")
        if commit.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"the server answered {commit.statusmessage} to COMMIT")
    except BaseException:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.rollback()
        raise
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


class Reader:
    """One connection for reads, shared by a process's threads; opened on demand, replaced when it breaks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Row] | None = None

    def read(self, query: str, params: Sequence[Any] = ()) -> list[Row]:
        """Rows of ``query``; tried once more on a new connection when the old one turns out broken."""
        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None or self._connection.closed:
                        self._connection = connect(self.name)
                    cursor = self._connection.execute(query, params, prepare=True)
                    return cursor.fetchall() if cursor.description else []
                except psycopg.OperationalError:
                    self.close()
                    if last:
                        raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_reader = Reader("reader")


def read(query: str, params: Sequence[Any] = ()) -> list[Row]:
    """Read through the process's one reader."""
    return _reader.read(query, params)
