"""A Postgres that can lose what it has confirmed is refused at the first connection."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from botproject.local.servers import private_servers
from conversations.errors import CoreError, UnsafeDatabase
from conversations.postgres import database, durability, pipeline
from conversations.postgres.sql_files import sql
from tests.conftest import Addresses


def test_a_durable_server_passes(servers: Addresses) -> None:
    with psycopg.connect(servers.database_url) as connection:
        if connection.execute("SHOW fsync").fetchone() == ("on",):
            durability.verify_server(connection)


def test_a_sessions_own_setting_is_seen(servers: Addresses) -> None:
    """As a role's or a database's own default would be."""
    connection = psycopg.connect(servers.database_url, options="-c synchronous_commit=off")
    with connection, pytest.raises(UnsafeDatabase, match="synchronous_commit is off"):
        durability.verify_server(connection)


def test_local_commit_is_as_durable_as_one_server(servers: Addresses) -> None:
    with psycopg.connect(servers.database_url, options="-c synchronous_commit=local") as connection:
        if connection.execute("SHOW fsync").fetchone() == ("on",):
            durability.verify_server(connection)


def test_first_connection_is_refused_as_if_it_were_away(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "_verified", set())
    with private_servers({"fsync": "off", "full_page_writes": "off"}) as pair:
        settings.DATABASE_URL = pair.database_url
        with pytest.raises(psycopg.OperationalError, match="fsync is off, full_page_writes is off") as caught:
            database.connect("test")
    assert isinstance(caught.value, CoreError)


def test_only_a_heartbeat_is_committed_without_the_disk(own_database: str) -> None:
    """A message alone waits for its COMMITs, not for the row that names the suspects after a crash."""
    connection, ask = database.connect("test"), "SELECT current_setting('synchronous_commit')"
    values = {"incarnation": uuid.uuid4(), "kind": "handle", "host": "", "pid": 1, "version": "", "running": "[]"}
    beats = [(sql("beat"), {**values, "bots": None})] * 2  # it is inserted, then updated
    together = pipeline.run(connection, [[*beats, (ask, ())], [(ask, ())]])
    found = [answers[-1].rows for answers in together if not isinstance(answers, psycopg.Error)]
    assert found == [[("off",)], [("on",)]]
    connection.close()
