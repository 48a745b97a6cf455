"""The core's connections: how long they wait for a dead server, and for a locked table."""

from __future__ import annotations

import threading
from typing import Any

import psycopg

from conversations.postgres import database

LIMITS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")


def test_the_core_and_django_wait_equally_long_for_a_dead_server(own_database: str, settings: Any) -> None:
    options = settings.DATABASES["default"]["OPTIONS"]
    with database.connect("test") as connection:
        parameters = connection.info.get_parameters()
    assert {name: parameters[name] for name in LIMITS} == {name: str(options[name]) for name in LIMITS}


def test_a_read_of_a_locked_table_fails_soon_and_keeps_no_other_statement_waiting(own_database: str) -> None:
    """A heartbeat shares its connection with reads: a worker that waits for a table must not look dead."""
    statements = [("SELECT id FROM message WHERE id = %(id)s", {"id": 1}), ("SELECT %(n)s::int", {"n": 1})]
    with psycopg.connect(own_database) as migration, database.connect("test") as connection:
        migration.execute("LOCK TABLE message")
        release = threading.Timer(10, migration.rollback)  # so that a read without a limit ends, too
        release.start()
        locked, other = database.each(connection, statements)
        release.cancel()
        migration.rollback()
        assert isinstance(locked, psycopg.errors.LockNotAvailable)
        assert other == [(1,)]
        assert database.each(connection, statements) == [[], [(1,)]], "the connection is as good as before"
