"""`check` and `check --deploy` refuse what would break the promise."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError

from conversations.models import Channel, Tenant
from conversations.operating import checks
from conversations.postgres import connection_budget

SAFE: dict[str, Any] = {
    "LOCAL": False,
    "ALLOW_PRIVATE_OUTBOUND": False,
    "PUBLIC_URL": "https://bots.example",
    "SESSION_COOKIE_SECURE": True,
    "CSRF_COOKIE_SECURE": True,
    "ALLOWED_HOSTS": ["bots.example"],
}


def ids(found: list[Any]) -> list[str]:
    return [message.id.rpartition(".")[2] for message in found]


@pytest.fixture
def safe(settings: Any) -> Any:
    for name, value in SAFE.items():
        setattr(settings, name, value)
    return settings


@pytest.mark.parametrize("name", checks.NEEDED)
def test_missing_keys_are_named(settings: Any, name: str) -> None:
    setattr(settings, name, "")
    assert [message.msg for message in checks.keys_are_set(None)] == [f"{name} is not set"]


@pytest.mark.parametrize(
    "secret", ["short", "a" * 60, "django-insecure-0123456789-abcdefghijklmnopqrstuvwxyz", "changeme" * 8]
)
def test_default_and_short_secrets_are_refused(settings: Any, secret: str) -> None:
    settings.SECRET_KEY = secret
    assert ids(checks.secret_is_secret(None)) == ["E002"]


def test_each_credentials_key_must_be_one(settings: Any) -> None:
    settings.CREDENTIALS_KEYS = [*settings.CREDENTIALS_KEYS, "0123456789abcdef" * 4, "not-a-key"]
    (error,) = checks.credentials_keys_are_keys(None)
    assert "number 3" in error.msg
    assert "not-a-key" not in error.msg


def test_adapters_must_import(settings: Any) -> None:
    settings.ADAPTERS = {"nowhere": "channels_ingest.adapters.nowhere.Nowhere"}
    assert ids(checks.adapters_import(None)) == ["E004"]


def test_refuses_to_start_without_keys(settings: Any) -> None:
    settings.SECRET_KEY = ""
    with pytest.raises(SystemExit, match="SECRET_KEY is not set"):
        checks.refuse_to_start()


@pytest.mark.parametrize("arguments", [[], ["--database", "default"]])
def test_a_wrong_bot_name_fails_check(own_database: str, arguments: list[str]) -> None:
    tenant = Tenant.objects.create(name="T")
    Channel.objects.create(tenant=tenant, platform="telegram", name="one", bot="ecko")
    with pytest.raises(SystemCheckError, match=r"channel 'one': no bot named 'ecko'; known: .*echo"):
        call_command("check", *arguments)


def test_check_works_without_a_database(settings: Any) -> None:
    settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    call_command("check")


def test_a_safe_deploy_passes(safe: Any) -> None:
    assert checks.nothing_local(None) == []
    assert checks.logins_are_guarded(None) == []


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("ALLOW_PRIVATE_OUTBOUND", True, "E101"),
        ("PUBLIC_URL", "http://bots.example", "E102"),
        ("DEBUG", True, "E103"),
        ("LOCAL", True, "E104"),
        ("ALLOWED_HOSTS", ["*"], "E106"),
        ("CSRF_COOKIE_SECURE", False, "E110"),
    ],
)
def test_deploy_refuses(safe: Any, name: str, value: Any, error: str) -> None:
    setattr(safe, name, value)
    assert ids(checks.nothing_local(None)) == [error]


def test_deploy_refuses_failpoints(safe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILPOINTS", "T4=kill")
    assert ids(checks.nothing_local(None)) == ["E105"]


def test_deploy_refuses_logins_without_axes(safe: Any) -> None:
    safe.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert ids(checks.logins_are_guarded(None)) == ["E107"]


def test_deploy_warns_of_lines_in_clear(safe: Any) -> None:
    safe.REDIS_CERTS = "none"
    safe.DATABASE_URL = "postgresql://u:p@db.example/x"
    assert ids(checks.lines_are_encrypted(None)) == ["W101", "W102"]
    safe.DATABASE_URL += "?sslmode=verify-full"
    assert ids(checks.lines_are_encrypted(None)) == ["W101"]


# ---------------------------------------------------------------- connections


def test_the_default_formation_fits_the_smallest_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 connections, of which 90 % may be used, by two versions at once."""
    for name in ("FORMATION", "WEB_CONCURRENCY", "WORKER_ROLES"):
        monkeypatch.delenv(name, raising=False)
    assert connection_budget.OVERLAP * connection_budget.of_formation() <= 18


def test_formation_counts_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMATION", "web=2, worker=1, sender=3")
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    monkeypatch.setenv("WORKER_ROLES", "handle,sweep")
    monkeypatch.setenv("WORKER_HANDLE_PROCESSES", "2")
    of = connection_budget.of_role
    assert connection_budget.of_formation() == 4 * connection_budget.of_web() + 2 * of("handle") + of("sweep") + 3 * of(
        "send"
    )


@pytest.mark.parametrize("formation", ["web=many", "clock=1"])
def test_a_wrong_formation_is_an_error(monkeypatch: pytest.MonkeyPatch, formation: str) -> None:
    monkeypatch.setenv("FORMATION", formation)
    with pytest.raises(ImproperlyConfigured):
        connection_budget.of_formation()
    assert ids(checks.connections_suffice(None)) == ["E109"]


def test_the_lowest_limit_counts(own_database: str) -> None:
    with psycopg.connect(own_database, autocommit=True) as connection:
        assert [(str(connection_budget.limit(connection)),)] == connection.execute("SHOW max_connections").fetchall()
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 12')  # type: ignore[arg-type]
        try:
            assert connection_budget.limit(connection) == 12
            assert ids(checks.connections_suffice(None)) == ["E108"]
        finally:
            connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')  # type: ignore[arg-type]
    assert checks.connections_suffice(None) == []


# ---------------------------------------------------------------- release


def test_release_waits_for_a_table_in_use_and_gives_up(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running version goes on meanwhile: nobody queues behind a migration for more than two seconds."""
    from django.db import OperationalError

    from conversations.management.commands import release

    tried = []

    def locked(command: str, *args: Any, **kwargs: Any) -> None:
        if command != "migrate":
            return
        tried.append(timeout())
        try:
            with psycopg.connect(own_database) as one, psycopg.connect(own_database) as other:
                one.execute("LOCK TABLE tenant")
                other.execute("SET lock_timeout = '20ms'")
                other.execute("ALTER TABLE tenant ADD COLUMN x int")
        except psycopg.errors.LockNotAvailable as error:
            raise OperationalError("canceling statement") from error

    monkeypatch.setattr(release, "call_command", locked)
    monkeypatch.setattr(release, "TRIES", 2)
    monkeypatch.setattr(release, "PAUSE_SECONDS", 0.01)
    with pytest.raises(CommandError, match="could not get their locks"):
        call_command("release")
    assert tried == ["2s", "2s"]


def timeout() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        return str(cursor.fetchone()[0])


def test_release_migrates_and_checks(own_database: str) -> None:
    call_command("release")
    assert timeout() == "0", "the next user of the connection waits as ever"
