"""How many database connections a formation opens at most, and how many the server allows.

``FORMATION`` says how many processes of the Procfile run, as ``web=1,worker=1``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from conversations.contracts import Work

OVERLAP = 2
SHARE = 0.9
DEFAULT_FORMATION = "web=1,worker=1"
# The lowest of what the server, the role and the database allow; -1 there means no limit.
LIMIT = """SELECT least(current_setting('max_connections')::int,
                        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
                        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))"""

# Where web processes store from, as their connections say (``named``). Behind a PgBouncer: those that used it last.
WEB_HOSTS = """SELECT DISTINCT split_part(application_name, '@', 2) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'store@_%%'"""
NAME_BYTES = 63  # of an application_name, in Postgres


def of_formation() -> int:
    """Connections of all processes of ``FORMATION``. Raises ``ImproperlyConfigured``."""
    return sum(_count(number) * of_process(name) for name, number in _formation())


def of_process(name: str) -> int:
    """Connections of one process of the Procfile."""
    if name == "web":
        return int(os.environ.get("WEB_CONCURRENCY") or 1) * of_web()
    return sum(
        of_role(role) * _count(os.environ.get(f"WORKER_{role.upper()}_PROCESSES") or "1") for role in _roles(name)
    )


def of_web() -> int:
    """One that stores (reads go through it, see ``database.read_through``), and the ORM's."""
    return 1 + settings.ORM_CONNECTIONS


def of_role(role: str) -> int:
    """One that commits and reads; where turns run, one that reads apart, and the bots' own."""
    return 1 + (1 + settings.BOT_CONNECTIONS if role == Work.HANDLE else 0)


def limit(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(LIMIT).fetchone()
    assert row is not None
    return int(row[0])


def named(name: str) -> str:
    """What a connection is called: what it does, and on which host."""
    return f"{name}@{platform.node()}".encode("ascii", "replace")[:NAME_BYTES].decode()


def other_hosts(rows: Iterable[tuple[str]]) -> list[str]:
    """Of ``WEB_HOSTS``, those that are not this one."""
    return sorted(host for (host,) in rows if named("store") != f"store@{host}")


def _formation() -> list[tuple[str, str]]:
    pairs = [part.strip().partition("=") for part in (os.environ.get("FORMATION") or DEFAULT_FORMATION).split(",")]
    return [(name.strip(), number.strip() or "1") for name, _, number in pairs if name]


def _roles(name: str) -> list[str]:
    """As the Procfile has them; a worker that shares with nobody does everything."""
    alone = {"sender": Work.SEND, "sweeper": Work.SWEEP, "worker": os.environ.get("WORKER_ROLES") or ",".join(Work)}
    roles = [role.strip() for role in alone.get(name, "").split(",") if role.strip()]
    if not roles or set(roles) - set(Work):
        raise ImproperlyConfigured(f"FORMATION or WORKER_ROLES: {name!r} runs {roles or 'nothing'}")
    return roles


def _count(number: str) -> int:
    if not number.isdigit():
        raise ImproperlyConfigured(f"FORMATION: {number!r} is not a number of processes")
    return int(number)
