"""Checks what must hold before the product may start.

``manage.py check`` runs these checks, ``check --deploy`` also those of ``deploy_checks``. Checks that
ask the database carry Django's tag ``database``; our own ``check`` command adds them whenever the
database answers. ``refuse_to_start`` is for processes that run no command (web, Celery).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured

from conversations import crypto, registry
from conversations.errors import CoreError, UnknownBot
from conversations.failpoints import failpoint
from conversations.operating import health
from conversations.postgres import database, durability
from conversations.storing import spool
from conversations.telemetry import error_places

HINT = "see docs/deploy.md"
# Settings without which nothing works. Each is read from the environment.
NEEDED = ("SECRET_KEY", "CREDENTIALS_KEYS", "DATABASE_URL", "REDIS_URL")
# Fewest characters of SECRET_KEY, and fewest different ones. Larger: refuses keys that are strong
# enough. Smaller: accepts keys that can be guessed.
SECRET_CHARACTERS = 32
SECRET_VARIETY = 8
WEAK_SECRETS = ("django-insecure", "change", "secret", "example", "default", "password")  # how defaults begin
# Linux lists the mounted file systems here.
MOUNTS = Path("/proc/self/mounts")
# File systems that lose their files (memory, a container's layer), or that belong to another
# machine, whose flock and fsync may promise less.
NOT_LASTING = ("tmpfs", "ramfs", "overlay", "overlayfs", "aufs", "nfs", "nfs4", "cifs", "smb3")
# Hosts to which a connection stays on this machine.
HERE = ("", "localhost", "127.0.0.1", "::1")


@register
def keys_are_set(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that the keys are set: they sign sessions and open credentials."""
    missing = [name for name in NEEDED if not _value(name)]
    return [Error(f"{name} is not set", hint=HINT, id="conversations.E001") for name in missing]


@register
def secret_is_secret(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check the key that signs sessions and visitors' tokens.

    Whoever guesses it can enter the admin.
    """
    secrets = [_value("SECRET_KEY"), *settings.SECRET_KEY_FALLBACKS]
    if not any(secret and _is_weak(secret) for secret in secrets):
        return []
    text = f"SECRET_KEY is a default, or shorter than {SECRET_CHARACTERS} random characters"
    return [Error(text, hint='python -c "import secrets; print(secrets.token_urlsafe(50))"', id="conversations.E002")]


@register
def credentials_keys_are_keys(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Find a malformed key at the start instead of at the first webhook."""
    wrong = [number for number, key in enumerate(settings.CREDENTIALS_KEYS, 1) if not _is_fernet(key)]
    text = "number {} of CREDENTIALS_KEYS is neither a Fernet key nor 64 hex digits"
    hint = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
    return [Error(text.format(number), hint=hint, id="conversations.E003") for number in wrong]


@register
def adapters_import(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that every adapter imports: without it, its platform's webhooks would fail."""
    return [error for platform in settings.ADAPTERS for error in _adapter_errors(platform)]


@register
def bots_import(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that every ``bots.py`` imports: one that fails could register some of its bots only."""
    return _errors_of(registry.load_bots, "a bots.py", "conversations.E005")


@register
def redis_certificates_are_decided(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a misspelt REDIS_CERTS: nobody would know whether certificates are checked."""
    if settings.REDIS_CERTS in ("required", "none"):
        return []
    return [Error("REDIS_CERTS is neither `required` nor `none`", hint=HINT, id="conversations.E006")]


@register
def spool_lasts(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that files in the spool's folder survive a restart: they hold accepted webhooks."""
    why = _why_no_spool(settings.SPOOL_DIR) if settings.SPOOL_DIR else ""
    return [Error(f"SPOOL_DIR: {why}", hint=HINT, id="conversations.E013")] if why else []


@register
def send_only_to_names_channels(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that each entry names a channel: the same id is another person on another platform."""
    wrong = [entry for entry in settings.SEND_ONLY_TO if not all(entry.partition(":"))]
    text = "SEND_ONLY_TO: {0!r} names no channel, so nobody gets anything; write PUBLIC_ID_OF_THE_CHANNEL:{0}"
    return [Error(text.format(entry), hint=HINT, id="conversations.E016") for entry in wrong]


@register(Tags.database)
def spool_is_of_one_host(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that no other web host is alive.

    It would store newer requests before those in our spool, out of order.
    """
    rows = _rows(database.WEB_HOSTS) if databases and settings.SPOOL_DIR else []
    others = ", ".join(database.other_hosts(rows))
    text = f"SPOOL_DIR is for one web host, and another is alive: {others}"
    return [Error(text, hint=HINT, id="conversations.E014")] if others else []


@register(Tags.database)
def channels_name_bots(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Find channels whose bot does not exist: they would answer nobody."""
    rows = _rows("SELECT public_id, name, bot FROM channel WHERE active ORDER BY id") if databases else []
    return [error for row in rows for error in _bot_errors(*row)]


@register(Tags.database)
def server_keeps_its_word(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the server's durability settings, as every process does at its first connection."""
    if not databases or not settings.DATABASE_URL:
        return []
    try:
        with connect() as connection:
            durability.verify_server(connection)
    except CoreError as error:
        return [Error(str(error), hint=HINT, id="conversations.E008")]
    except psycopg.Error as error:
        return [Error(f"the database does not answer: {error_places.kind(error)}", id="conversations.E009")]
    return []


@register(Tags.database)
def prepared_statements_last(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check that two connections may prepare the same statement.

    Behind an old PgBouncer they share a session: webhooks would be answered 503.
    """
    if not databases or not settings.DATABASE_URL or not settings.PREPARED_STATEMENTS:
        return []
    try:
        with database.connect("check") as first, database.connect("check") as second:
            for connection in (first, second):
                database.transaction(connection, {"probe": health.PROBE.STATEMENT})
    except psycopg.errors.DuplicatePreparedStatement:
        text = "the pooler before Postgres mixes up prepared statements: set PREPARED_STATEMENTS=0"
        return [Error(text, hint=HINT, id="conversations.E017")]
    except (psycopg.Error, CoreError):  # E008 and E009 report that
        pass
    return []


@register
def nothing_local_in_public(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a developer's settings at a public address: they show secrets and let channels reach inwards."""
    wrong = [name for name in ("DEBUG", "LOCAL") if getattr(settings, name)]
    if not wrong or is_here(urlsplit(settings.PUBLIC_URL).hostname or ""):
        return []
    text = f"{' and '.join(wrong)} must be off where PUBLIC_URL ({settings.PUBLIC_URL}) is not this machine"
    return [Error(text, hint=HINT, id="conversations.E015")]


def is_here(host: str) -> bool:
    """Return True if a connection to this host stays on this machine."""
    return host in HERE or host.startswith(("/", "127."))


# ---------------------------------------------------------------- without a command


def refuse_to_start() -> None:
    """End this process if a check that needs no database finds an error.

    For web and Celery processes, which run no ``check`` of their own.
    """
    failpoint("M1")
    found = [message for check in STATIC for message in check(None)]
    if found:
        raise SystemExit("\n".join(f"{message.id}: {message.msg}" for message in found))


# Checks that need no database. A web process must start while Postgres is away.
STATIC: tuple[Callable[..., list[CheckMessage]], ...] = (
    keys_are_set,
    secret_is_secret,
    credentials_keys_are_keys,
    adapters_import,
    bots_import,
    redis_certificates_are_decided,
    spool_lasts,
    nothing_local_in_public,
)


def connect() -> psycopg.Connection[Any]:
    """Open a connection for a check, whatever the server's settings are."""
    return psycopg.connect(settings.DATABASE_URL, autocommit=True, connect_timeout=2, application_name="check")


# ---------------------------------------------------------------- helpers


def _value(name: str) -> Any:
    """Return a setting, '' if it is empty.

    Django itself raises for an empty SECRET_KEY, which a check has to report instead.
    """
    try:
        return getattr(settings, name)
    except ImproperlyConfigured:
        return ""


def _is_weak(secret: str) -> bool:
    """Return True if a secret is short, repeats few characters, or begins like a default."""
    return (
        len(secret) < SECRET_CHARACTERS or len(set(secret)) < SECRET_VARIETY or secret.lower().startswith(WEAK_SECRETS)
    )


def _is_fernet(key: str) -> bool:
    try:
        crypto.read_key(key)
    except ValueError:
        return False
    return True


def _adapter_errors(platform: str) -> list[CheckMessage]:
    return _errors_of(lambda: registry.adapter(platform), f"the adapter of {platform!r}", "conversations.E004")


def _bot_errors(public_id: str, name: str, bot: str) -> Iterator[CheckMessage]:
    """Yield an error if a channel names a bot that does not exist."""
    try:
        registry.find_bot(bot)
    except UnknownBot as error:
        hint = f"manage.py set_channel {public_id} --bot NAME"
        yield Error(f"channel {name!r}: {error}", hint=hint, id="conversations.E007")
    except Exception:  # E005 reports a bots.py that does not import
        return


def _why_no_spool(folder: str) -> str:
    """Return why this folder cannot hold the spool, or ''."""
    if not os.path.isabs(folder):
        return "it is not an absolute path"
    if os.environ.get("DYNO"):
        return "a dyno's disk is gone with the dyno"
    try:
        spool.prepare(folder)
    except OSError as error:
        why = "it cannot be written, or it is not open to the user of the web process alone (mode 700)"
        return f"{why}: {error_places.kind(error)}"
    kind = _filesystem(os.path.realpath(folder))
    return f"{kind} is no lasting disk of this host" if kind in NOT_LASTING else ""


def _filesystem(folder: str) -> str:
    """Return the type of a folder's file system, or '' where it is not known (macOS).

    The longest mount point above the folder decides; of equal ones the last, which hides the
    others.
    """
    try:
        lines = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    above = [(place, kind) for _, place, kind, *_ in lines if f"{folder}/".startswith(f"{place.rstrip('/')}/")]
    return sorted(above, key=lambda mount: len(mount[0]))[-1][1] if above else ""


def _errors_of(load: Callable[[], Any], what: str, number: str) -> list[CheckMessage]:
    """Return an error if ``load`` raises; an import may raise anything."""
    try:
        load()
    except Exception as error:  # an import may raise anything
        return [Error(f"{what} does not import: {error_places.kind(error)}: {error}", id=number)]
    return []


def _rows(query: str) -> list[Any]:
    """Read rows.

    Returns none before the first migrate or while the database is away (E009 reports that).
    """
    try:
        with connect() as connection:
            return connection.execute(query).fetchall()
    except psycopg.Error:
        return []
