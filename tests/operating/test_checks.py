"""`check` and `check --deploy` refuse what would break the promise."""

from __future__ import annotations

import contextlib
import json
import resource
import secrets
import uuid
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError

from channels_ingest.checks import threads_suffice
from channels_ingest.webhooks import body_limits
from conversations.lanes import redis_client
from conversations.management.commands import release
from conversations.models import Channel, Tenant, Worker
from conversations.operating import checks, connection_budget, deploy_checks, health
from conversations.postgres import database, pipeline
from tests.kit.stack import ROOT

SAFE: dict[str, Any] = {
    "LOCAL": False,
    "ALLOW_PRIVATE_OUTBOUND": False,
    "PUBLIC_URL": "https://bots.example",
    "SESSION_COOKIE_SECURE": True,
    "CSRF_COOKIE_SECURE": True,
    "ALLOWED_HOSTS": ["bots.example"],
    "SECRET_KEY": "nQ2vS8rT5wX1yZ4aB7cD0eF3gH6jK9mN2pR5",
    "CREDENTIALS_KEYS": ["Zm9yIGEgc2FmZSBkZXBsb3kgb2YgdGhlc2UgdGVzdHM="],
    "METRICS_TOKEN": "aB3dE6fG9hJ2kL5mN8pQ1rS4",
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


@pytest.mark.parametrize("secret", [
    "short", "a" * 60, "django-insecure-0123456789-abcdefghijklmnopqrstuvwxyz", "changeme" * 8,
])  # fmt: skip
def test_default_and_short_secrets_are_refused(settings: Any, secret: str) -> None:
    settings.SECRET_KEY = secret
    assert ids(checks.secret_is_secret(None)) == ["E002"]


def test_each_credentials_key_must_be_one(settings: Any) -> None:
    settings.CREDENTIALS_KEYS = [*settings.CREDENTIALS_KEYS, "0123456789abcdef" * 4, "not-a-key"]
    (error,) = checks.credentials_keys_are_keys(None)
    assert "number 3" in error.msg
    assert "not-a-key" not in error.msg


def test_entries_of_send_only_to_name_a_channel(settings: Any) -> None:
    settings.SEND_ONLY_TO = ["5", "shop:5", ":5", "shop:"]
    found = checks.send_only_to_names_channels(None)
    assert ids(found) == ["E016"] * 3
    assert "write PUBLIC_ID_OF_THE_CHANNEL:5" in found[0].msg


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


def test_a_pooler_that_mixes_up_prepared_statements_is_refused(
    own_database: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an old PgBouncer does, which gives the second connection the session of the first."""
    connect = database.connect
    compiled = pipeline._compile(health.PROBE.STATEMENT[0])

    def share(name: str) -> psycopg.Connection[Any]:
        connection = connect(name)
        connection.execute(f'PREPARE "{compiled.name.decode()}_0" AS SELECT 1')
        return connection

    assert checks.prepared_statements_last(None, databases=["default"]) == []
    monkeypatch.setattr(database, "connect", share)
    (error,) = checks.prepared_statements_last(None, databases=["default"])
    assert (ids([error]), "PREPARED_STATEMENTS=0" in error.msg) == (["E017"], True)
    settings.PREPARED_STATEMENTS = False
    assert checks.prepared_statements_last(None, databases=["default"]) == []


def test_a_safe_deploy_passes(safe: Any) -> None:
    assert deploy_checks.nothing_local(None) == []
    assert deploy_checks.logins_are_guarded(None) == []


@pytest.mark.parametrize(("name", "value", "error"), [
    ("ALLOW_PRIVATE_OUTBOUND", True, "E101"),
    ("PUBLIC_URL", "http://bots.example", "E102"),
    ("DEBUG", True, "E103"),
    ("LOCAL", True, "E104"),
    ("ALLOWED_HOSTS", ["*"], "E106"),
    ("CSRF_COOKIE_SECURE", False, "E110"),
    ("SECRET_KEY", "only-for-tests-only-for-tests-only-for-tests-only", "E111"),
    ("CREDENTIALS_KEYS", ["x" * 43 + "=", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="], "E111"),
    ("METRICS_TOKEN", "a", "E112"),
    ("METRICS_TOKEN", "0123456789" * 3, "E112"),
    ("METRICS_TOKEN", "ab" * 40, "E112"),
])  # fmt: skip
def test_deploy_refuses(safe: Any, name: str, value: Any, error: str) -> None:
    setattr(safe, name, value)
    assert ids(deploy_checks.nothing_local(None)) == [error]


def test_deploy_refuses_failpoints(safe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILPOINTS", "T4=kill")
    assert ids(deploy_checks.nothing_local(None)) == ["E105"]


def test_deploy_refuses_logins_without_axes(safe: Any) -> None:
    safe.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert ids(deploy_checks.logins_are_guarded(None)) == ["E107"]


def test_deploy_warns_of_lines_in_clear(safe: Any) -> None:
    safe.REDIS_CERTS = "none"
    safe.DATABASE_URL = "postgresql://u:p@db.example/x"
    assert ids(deploy_checks.lines_are_encrypted(None)) == ["W101", "W102"]
    safe.DATABASE_URL += "?sslmode=verify-full"
    assert ids(deploy_checks.lines_are_encrypted(None)) == ["W101"]


@pytest.mark.parametrize("name", ["LOCAL", "DEBUG"])
@pytest.mark.parametrize(("url", "errors"), [
    ("http://127.0.0.1:8000", []), ("http://localhost:9", []), ("https://bots.example", ["E015"]),
])  # fmt: skip
def test_no_process_starts_local_at_a_public_address(safe: Any, name: str, url: str, errors: list[str]) -> None:
    safe.PUBLIC_URL = url
    setattr(safe, name, True)
    assert ids(checks.nothing_local_in_public(None)) == errors
    if errors:
        with pytest.raises(SystemExit, match=name):
            checks.refuse_to_start()


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
    of = connection_budget.of_kind
    assert connection_budget.of_formation() == 4 * of("web") + 2 * of("handle") + of("sweep") + 3 * of("send")


@pytest.mark.parametrize("formation", ["web=many", "clock=1"])
def test_a_wrong_formation_is_an_error(monkeypatch: pytest.MonkeyPatch, formation: str) -> None:
    monkeypatch.setenv("FORMATION", formation)
    with pytest.raises(ImproperlyConfigured):
        connection_budget.of_formation()
    assert ids(deploy_checks.connections_suffice(None)) == ["E109"]


def test_the_lowest_limit_counts(own_database: str) -> None:
    with psycopg.connect(own_database, autocommit=True) as connection:
        assert [(str(connection_budget.limit(connection)),)] == connection.execute("SHOW max_connections").fetchall()
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 12')  # type: ignore[arg-type]
        try:
            assert connection_budget.limit(connection) == 12
            assert ids(deploy_checks.connections_suffice(None)) == ["E108"]
        finally:
            connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')  # type: ignore[arg-type]
    assert deploy_checks.connections_suffice(None) == []


def test_processes_that_run_count_whatever_formation_says(own_database: str) -> None:
    """Two web processes store and two handle, though FORMATION was not set after they were scaled by hand."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(own_database, autocommit=True))
        for _ in range(2):
            stack.enter_context(psycopg.connect(own_database, application_name="store@elsewhere"))
            Worker.objects.create(incarnation=uuid.uuid4(), kind="handle")
        Worker.objects.create(incarnation=uuid.uuid4(), kind="handle", dead=True)
        of = connection_budget
        assert of.of_living(connection) == 2 * of.of_kind("web") + 2 * of.of_kind("handle")
        name, limit = connection.info.dbname, 2 * of.of_formation() + 3
        connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {limit}')  # type: ignore[arg-type]
        try:
            (error,) = deploy_checks.connections_suffice(None)
            assert "the processes that run now" in error.msg
        finally:
            connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')  # type: ignore[arg-type]


def test_a_web_process_may_have_a_thread_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a thread is refused, granian's worker ends; a small dyno allows 256."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 256))
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    (error,) = threads_suffice(None)
    assert ("1064 threads, of 256" in error.msg, error.id) == (True, "channels_ingest.E101")
    app = json.loads((ROOT / "app.json").read_text())["env"]
    monkeypatch.setattr(body_limits, "CONNECTIONS", int(app["WEB_CONNECTIONS"]["value"]))
    assert threads_suffice(None) == []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr(body_limits, "CONNECTIONS", 10**6)
    assert threads_suffice(None) == []


def test_the_formation_of_app_json_is_the_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where WEB_CONCURRENCY is not set, Heroku's buildpack sets 2 on the smallest dyno: twice that is over 18."""
    app = json.loads((ROOT / "app.json").read_text())
    monkeypatch.setenv("WEB_CONCURRENCY", app["env"].get("WEB_CONCURRENCY", {}).get("value", "2"))
    for formation in (app["formation"], app["environments"]["review"]["formation"]):
        monkeypatch.setenv("FORMATION", ",".join(f"{name}={each['quantity']}" for name, each in formation.items()))
        assert connection_budget.OVERLAP * connection_budget.of_formation() <= 18


def test_check_warns_where_redis_takes_fewer_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    client = redis_client.client()
    allowed = client.config_get("maxclients")["maxclients"]
    assert deploy_checks.redis_takes_all(None) == []
    monkeypatch.setenv("FORMATION", "web=2,worker=9")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    try:
        client.config_set("maxclients", 140)
        (warning,) = deploy_checks.redis_takes_all(None)
        assert warning.msg == f"the formation opens up to {2 * 3 * 2 + 9 * 15} connections to Redis, which takes 140"
    finally:
        client.config_set("maxclients", allowed)


# ---------------------------------------------------------------- release


@pytest.mark.parametrize("name", checks.NEEDED)
def test_release_names_a_missing_setting_before_it_touches_the_database(settings: Any, name: str) -> None:
    setattr(settings, name, "")
    with pytest.raises(SystemExit, match=f"{name} is not set"):
        call_command("release")


def test_release_fails_on_a_warning_of_security_that_nobody_accepted(
    own_database: str, safe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "call_command", lambda *_, **__: None)
    safe.SECRET_KEY = secrets.token_urlsafe(50)  # that of the tests is too short for Django's own check
    safe.REDIS_CERTS, safe.SECURE_HSTS_SECONDS = "none", 3600
    safe.SECURE_HSTS_INCLUDE_SUBDOMAINS = safe.SECURE_HSTS_PRELOAD = True
    call_command("release")
    safe.SESSION_COOKIE_HTTPONLY = safe.SECURE_CONTENT_TYPE_NOSNIFF = False
    with pytest.raises(CommandError, match=r"security\.W006"):
        call_command("release")


def test_release_waits_for_a_table_in_use_and_gives_up(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running version goes on meanwhile: nobody queues behind a migration for more than two seconds."""
    from django.db import OperationalError

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
