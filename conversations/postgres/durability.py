"""Refuses a Postgres that can lose what it has confirmed.

Each process checks its first connection, not its start: a web process must start, and answer 503,
while Postgres is away. The session's values are read, so that a role's or a database's own
``synchronous_commit`` counts as well.
"""

from __future__ import annotations

from typing import Any

import psycopg

from conversations.errors import UnsafeDatabase

# Settings of the server with the only value that is accepted, and with the value that is refused.
NEEDED = {"fsync": "on", "full_page_writes": "on", "server_encoding": "UTF8"}
# ``local`` confirms when this one Postgres has written; only ``off`` confirms before that.
REFUSED = {"synchronous_commit": "off"}
QUERY = "SELECT " + ", ".join(f"current_setting('{name}')" for name in (*NEEDED, *REFUSED))

_verified: set[tuple[str, int]] = set()  # servers (host, port) that this process found safe


def verify_once(connection: psycopg.Connection[Any]) -> None:
    """Verify this process's first connection to a server; close it and raise if that is unsafe."""
    server = (connection.info.host, connection.info.port)
    if server in _verified:
        return
    try:
        verify_server(connection)
    except UnsafeDatabase:
        connection.close()
        raise
    _verified.add(server)


def verify_server(connection: psycopg.Connection[Any]) -> None:
    """Raise ``UnsafeDatabase``, naming each setting by which a stored message could be lost."""
    row = connection.execute(QUERY).fetchone()
    assert row is not None
    values = dict(zip((*NEEDED, *REFUSED), row, strict=True))
    unsafe = [name for name in NEEDED if values[name] != NEEDED[name]]
    unsafe += [name for name in REFUSED if values[name] == REFUSED[name]]
    if unsafe:
        wrong = [f"{name} is {values[name]}" for name in unsafe]
        raise UnsafeDatabase(f"this Postgres can lose what it has confirmed: {', '.join(wrong)}")
