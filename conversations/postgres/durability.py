"""Postgres must keep what it has confirmed: asked at a process's first connection.

Not at start, because the web comes up and answers 503 while Postgres is away. What counts is the
session's value, so a role's or a database's own ``synchronous_commit`` is seen as well.
"""

from __future__ import annotations

from typing import Any

import psycopg

from conversations.errors import UnsafeDatabase

NEEDED = {"fsync": "on", "full_page_writes": "on", "server_encoding": "UTF8"}
# `local` is as durable as this one Postgres; only `off` answers before the write.
REFUSED = {"synchronous_commit": "off"}
QUERY = "SELECT " + ", ".join(f"current_setting('{name}')" for name in (*NEEDED, *REFUSED))


_verified = False


def verify_once(connection: psycopg.Connection[Any]) -> None:
    """``verify_server`` for this process's first connection, which is closed when it is refused."""
    global _verified
    if _verified:
        return
    try:
        verify_server(connection)
    except UnsafeDatabase:
        connection.close()
        raise
    _verified = True


def verify_server(connection: psycopg.Connection[Any]) -> None:
    """Raises ``UnsafeDatabase``, naming every setting by which a stored message could be lost."""
    row = connection.execute(QUERY).fetchone()
    assert row is not None
    values = dict(zip((*NEEDED, *REFUSED), row, strict=True))
    wrong = [f"{name} is {values[name]}" for name in values if not _holds(name, values[name])]
    if wrong:
        raise UnsafeDatabase(f"this Postgres can lose what it has confirmed: {', '.join(wrong)}")


def _holds(name: str, value: str) -> bool:
    return value != REFUSED[name] if name in REFUSED else value == NEEDED[name]
