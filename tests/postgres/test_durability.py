"""A Postgres that can lose what it has confirmed is refused at the first connection."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from botproject.local.servers import private_servers
from conversations.errors import CoreError, UnsafeDatabase
from conversations.postgres import database, durability
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
    monkeypatch.setattr(durability, "_verified", False)
    with private_servers({"fsync": "off", "full_page_writes": "off"}) as pair:
        settings.DATABASE_URL = pair.database_url
        with pytest.raises(psycopg.OperationalError, match="fsync is off, full_page_writes is off") as caught:
            database.connect("test")
    assert isinstance(caught.value, CoreError)
