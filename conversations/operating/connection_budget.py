"""How many database connections a formation opens at most, and how many the server allows.

``FORMATION`` says how many processes of the Procfile run, as ``web=1,worker=1``. A formation that was
scaled by hand is counted by its living processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from conversations.contracts import Work

# Formations that run at once: a deploy starts the new one before it stops the old one. Smaller:
# during a deploy, connections can be refused.
OVERLAP = 2
# The part of the server's limit that all formations may use; the rest is for people, backups and
# the release command. Larger: these can be refused. Smaller: a larger server is needed.
SHARE = 0.9
DEFAULT_FORMATION = "web=1,worker=1"  # where FORMATION is not set
# The lowest limit of the server, the role and the database; -1 means none.
LIMIT = """SELECT least(current_setting('max_connections')::int,
                        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
                        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))"""

# Living processes by kind: workers by their rows, web processes by the sessions in which they store.
LIVING = """SELECT kind, count(*) FROM worker WHERE NOT dead GROUP BY kind
            UNION ALL
            SELECT 'web', count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'store@_%%'"""


def of_formation() -> int:
    """Return the connections of all processes of ``FORMATION``. Raises ``ImproperlyConfigured``."""
    return sum(number * of_kind(kind) for kind, number in formation())


def of_kind(kind: str) -> int:
    """Return the connections of a process: ``web``, or a worker's role.

    A web process stores and reads on one (``Runtime.start_writer``), the others are the ORM's. A
    worker commits and reads on one; where turns run, there are a reader and the bots' as well.
    """
    if kind == "web":
        return 1 + settings.ORM_CONNECTIONS
    return 1 + (1 + settings.BOT_CONNECTIONS if kind == Work.HANDLE else 0)


def formation() -> Iterator[tuple[str, int]]:
    """Yield each kind of process that ``FORMATION`` starts, and how many. A kind may come twice.

    Raises ``ImproperlyConfigured``.
    """
    for part in (os.environ.get("FORMATION") or DEFAULT_FORMATION).split(","):
        name, _, text = (word.strip() for word in part.partition("="))
        if not name:
            continue
        number = _as_number(text or "1")
        if name == "web":
            yield "web", number * int(os.environ.get("WEB_CONCURRENCY") or 1)
            continue
        for role in _roles(name):
            yield role, number * _as_number(os.environ.get(f"WORKER_{role.upper()}_PROCESSES") or "1")


def of_living(connection: psycopg.Connection[Any]) -> int:
    """Return the connections of all processes that live now."""
    rows = connection.execute(LIVING).fetchall()
    return sum(number * of_kind(kind) for kind, number in rows)


def limit(connection: psycopg.Connection[Any]) -> int:
    """Return how many connections the server allows."""
    row = connection.execute(LIMIT).fetchone()
    assert row is not None
    return int(row[0])


def _roles(name: str) -> list[str]:
    """Return the roles of a process of the Procfile; of a worker, those of ``WORKER_ROLES``.

    Raises ``ImproperlyConfigured`` for a name or role that we do not know.
    """
    roles_of = {"sender": Work.SEND, "sweeper": Work.SWEEP, "worker": os.environ.get("WORKER_ROLES") or ",".join(Work)}
    roles = [role.strip() for role in roles_of.get(name, "").split(",") if role.strip()]
    if not roles or set(roles) - set(Work):
        raise ImproperlyConfigured(f"FORMATION or WORKER_ROLES: {name!r} runs {roles or 'nothing'}")
    return roles


def _as_number(number: str) -> int:
    """Return a number of processes. Raises ``ImproperlyConfigured``."""
    if not number.isdigit():
        raise ImproperlyConfigured(f"FORMATION: {number!r} is not a number of processes")
    return int(number)
