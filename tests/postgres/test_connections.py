"""Connections of the core and of Django notice a dead server equally soon."""

from __future__ import annotations

from typing import Any

from conversations.postgres import database

LIMITS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")


def test_the_core_and_django_wait_equally_long_for_a_dead_server(own_database: str, settings: Any) -> None:
    options = settings.DATABASES["default"]["OPTIONS"]
    with database.connect("test") as connection:
        parameters = connection.info.get_parameters()
    assert {name: parameters[name] for name in LIMITS} == {name: str(options[name]) for name in LIMITS}
