"""Checks what must hold before a public installation may start: ``check --deploy`` and ``release``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import redis
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from conversations import crypto
from conversations.contracts import Work
from conversations.lanes import redis_client
from conversations.operating import checks, connection_budget
from conversations.operating.checks import HINT, connect
from conversations.telemetry import error_places

# Limits failed logins. It must come first: a backend before it would answer without a limit.
GUARD = "axes.backends.AxesStandaloneBackend"
# The process id that a client knows is not its session's where a pooler is in between.
POOLED_AND_JIT = "SELECT pg_backend_pid() <> %s, current_setting('jit')"
# Most Redis connections of a process by its kind; the main process of a worker is counted with send.
REDIS_CONNECTIONS: Mapping[str, int] = {"web": 2, Work.HANDLE: 6, Work.SEND: 5, Work.SWEEP: 4}
# The credentials key of this repository's tests and checks.
PUBLISHED_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
# Number of the check -> whether the mistake is there, and how to say it.
_LOCAL_ONLY: tuple[tuple[int, Callable[[], bool], str], ...] = (
    (101, lambda: settings.ALLOW_PRIVATE_OUTBOUND, "ALLOW_PRIVATE_OUTBOUND is on: channels reach into your network"),
    (102, lambda: not settings.PUBLIC_URL.startswith("https://"),
     "PUBLIC_URL is not https (Heroku gives one with `heroku labs:enable runtime-dyno-metadata`)"),
    (103, lambda: settings.DEBUG, "DEBUG is on: error pages show secrets"),
    (104, lambda: settings.LOCAL, "LOCAL is on: it is for `make run` and tests"),
    (105, lambda: bool(os.environ.get("FAILPOINTS")), "FAILPOINTS is set: it is for tests"),
    (106, lambda: "*" in settings.ALLOWED_HOSTS, "ALLOWED_HOSTS takes any host"),
    (110, lambda: not (settings.SESSION_COOKIE_SECURE and settings.CSRF_COOKIE_SECURE), "cookies travel in clear"),
    (111, lambda: settings.SECRET_KEY.startswith("only-for-") or PUBLISHED_KEY in settings.CREDENTIALS_KEYS,
     "SECRET_KEY or CREDENTIALS_KEYS is a key of the tests, which everybody can read"),
    (112, lambda: bool(settings.METRICS_TOKEN) and crypto.is_guessable(settings.METRICS_TOKEN),
     "METRICS_TOKEN can be guessed: give it 32 random characters or more"),
)  # fmt: skip


@register(Tags.security, deploy=True)
def nothing_local(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Find settings that suit a developer's machine and are wrong for a public one."""
    return [Error(text, hint=HINT, id=f"conversations.E{number}") for number, wrong, text in _LOCAL_ONLY if wrong()]


@register(Tags.security, deploy=True)
def logins_are_guarded(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that failed logins are limited."""
    if settings.AUTHENTICATION_BACKENDS[0] == GUARD and getattr(settings, "AXES_ENABLED", True):
        return []
    return [Error("axes does not guard the login: passwords can be guessed", hint=HINT, id="conversations.E107")]


@register(Tags.security, deploy=True)
def lines_are_encrypted(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn only: in a private network, unencrypted connections may be right."""
    found: list[CheckMessage] = []
    if settings.REDIS_CERTS == "none":
        found.append(
            Warning("REDIS_CERTS=none: nobody checks who answers as Redis", hint=HINT, id="conversations.W101")
        )
    if settings.DATABASE_URL and not _database_is_encrypted():
        found.append(
            Warning("DATABASE_URL does not ask for TLS: add ?sslmode=require", hint=HINT, id="conversations.W102")
        )
    return found


@register(Tags.files, deploy=True)
def files_last(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn where people's files are kept on a disk that is emptied every day."""
    on_disk = settings.STORAGES.get("media", {}).get("BACKEND", "").endswith("FileSystemStorage")
    text = "people's files are kept on a dyno's own disk: set MEDIA_STORAGE to one that lasts"
    return [Warning(text, hint=HINT, id="conversations.W106")] if on_disk and "DYNO" in os.environ else []


@register(Tags.security, deploy=True)
def connections_suffice(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that the server allows twice the formation: in a deploy, old and new processes overlap."""
    try:
        needed = {"FORMATION": connection_budget.of_formation()}
        with connect() as connection:
            limit = connection_budget.limit(connection)
            needed["the processes that run now"] = connection_budget.of_living(connection)
    except ImproperlyConfigured as error:
        return [Error(str(error), hint=HINT, id="conversations.E109")]
    except psycopg.Error as error:
        return [Warning(f"connections were not counted: {error_places.kind(error)}", id="conversations.W103")]
    return _too_many(needed, limit)


@register(Tags.security, deploy=True)
def plans_are_not_compiled(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that no session compiles its plans (JIT): a small statement then takes seconds.

    Our own sessions turn it off; behind a PgBouncer only its server, role or database can.
    """
    try:
        with connect() as connection:
            pooled, jit = connection.execute(POOLED_AND_JIT, (connection.info.backend_pid,)).fetchall()[0]
    except psycopg.Error:  # E009 reports it
        return []
    text = "a pooler is in front of Postgres, and jit is on: reads can take seconds"
    hint = "ALTER ROLE ... SET jit = off"
    return [Warning(text, hint=hint, id="conversations.W104")] if pooled and jit == "on" else []


@register(Tags.caches, deploy=True)
def redis_takes_all(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn where Redis refuses some of our connections: their work then waits for the sweeper."""
    try:
        needed = sum(number * REDIS_CONNECTIONS[kind] for kind, number in connection_budget.formation())
        # Servers before Redis 7 do not tell.
        most = redis_client.client().info("clients").get("maxclients", needed)
    except (ImproperlyConfigured, redis.RedisError):  # E109 reports the first; Redis may be away
        return []
    text = f"the formation opens up to {needed} connections to Redis, which takes {most}"
    return [Warning(text, hint=HINT, id="conversations.W105")] if needed > int(most) else []


def _database_is_encrypted() -> bool:
    """Return True if the URL demands TLS or names this machine."""
    wanted = conninfo_to_dict(settings.DATABASE_URL)
    host = str(wanted.get("host") or "")
    return checks.is_here(host) or wanted.get("sslmode") in ("require", "verify-ca", "verify-full")


def _too_many(needed: Mapping[str, int], limit: int) -> list[CheckMessage]:
    """Return an error if a formation, twice, opens more connections than the share we may use."""
    what, number = max(needed.items(), key=lambda each: each[1])
    most = int(limit * connection_budget.SHARE)
    if connection_budget.OVERLAP * number <= most:
        return []
    text = (
        f"{what}: up to {number} database connections, {connection_budget.OVERLAP * number} while a deploy overlaps;"
        f" of {limit} at most {most} may be used. WEB_CONCURRENCY is {os.environ.get('WEB_CONCURRENCY') or 1}"
        " (Heroku sets 2 or more where you do not set it)"
    )
    return [Error(text, hint=HINT, id="conversations.E108")]
