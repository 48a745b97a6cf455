"""/healthz/ answers in time, whatever is away, frozen or black-holed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.test import Client

from conversations import runtime
from conversations.postgres import database

SECONDS = 3.0


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def get() -> tuple[int, dict[str, Any], float]:
    started = time.monotonic()
    answer = Client().get("/healthz/")
    return answer.status_code, answer.json(), time.monotonic() - started


def test_well(own_database: str) -> None:
    code, about, _ = get()
    assert code == 200
    assert about["storing"] == about["redis"] == "ok"
    assert about["held"] == ""
    assert about["workers"] == {}
    assert about["quarantined"] == about["pauses"] == 0


def test_says_that_sending_is_held(own_database: str, settings: Any) -> None:
    settings.PUBLIC_URL = "https://staging.example"
    assert "https://staging.example" in get()[1]["held"]


@pytest.mark.parametrize("where", ["127.0.0.1:1", "black hole"])
def test_postgres_away_is_503_in_time(own_database: str, settings: Any, black_hole: str, where: str) -> None:
    settings.DATABASE_URL = f"postgresql://u:s3cret@{black_hole if where == 'black hole' else where}/x"
    runtime.begin()
    code, about, seconds = get()
    assert code == 503
    assert seconds < SECONDS
    assert "s3cret-Token-0123456789" not in str(about)
    assert get()[2] < SECONDS


def test_redis_away_is_still_200(own_database: str, settings: Any, black_hole: str) -> None:
    settings.REDIS_URL = f"redis://:s3cret@{black_hole}/0"
    runtime.begin()
    code, about, seconds = get()
    runtime.begin()
    assert code == 200
    assert seconds < SECONDS
    assert about["redis"] != "ok"
    assert "s3cret-Token-0123456789" not in str(about)


def test_a_read_only_database_is_503(own_database: str, settings: Any) -> None:
    """After a failover, or when the plan is full."""
    settings.DATABASE_URL = own_database + "?options=-c%20default_transaction_read_only%3Don"
    runtime.begin()
    code, about, _ = get()
    assert (code, about["storing"]) == (503, "read-only")


def test_needs_no_cookie_and_no_session(own_database: str) -> None:
    answer = Client().get("/healthz/")
    assert not answer.cookies
    assert answer["Cache-Control"] == "no-store"


WORDS = {"status", "storing", "redis", "handling", "sending", "sweeping"}


def test_strangers_get_a_word_for_each_part(own_database: str, settings: Any) -> None:
    settings.LOCAL, settings.METRICS_TOKEN = False, "t0ken"
    about = get()[1]
    assert about == {**dict.fromkeys(WORDS, "down"), "storing": "ok", "redis": "ok", "status": "degraded"}
    for wrong in ("Bearer wrong", "t0ken", ""):
        assert Client().get("/healthz/", headers={"Authorization": wrong}).json() == about
    full = Client().get("/healthz/", headers={"Authorization": "Bearer t0ken"}).json()
    assert full.keys() > WORDS
    assert full["workers"] == {}


def test_without_a_token_in_the_settings_nobody_gets_more(own_database: str, settings: Any) -> None:
    settings.LOCAL, settings.METRICS_TOKEN = False, ""
    assert Client().get("/healthz/", headers={"Authorization": "Bearer "}).json().keys() == WORDS


def test_a_stranger_is_not_told_why_it_is_down(own_database: str, settings: Any) -> None:
    settings.LOCAL, settings.DATABASE_URL = False, "postgresql://u:s3cret@127.0.0.1:1/x"
    runtime.begin()
    assert get()[:2] == (503, {"status": "down", "storing": "down", "redis": "ok"})


@pytest.mark.parametrize(("method", "code"), [("head", 200), ("post", 405), ("delete", 405), ("options", 405)])
def test_only_get_and_head_are_answered(own_database: str, method: str, code: int) -> None:
    answer = getattr(Client(enforce_csrf_checks=True), method)("/healthz/")
    assert answer.status_code == code
    assert code == 200 or answer["Allow"] == "GET, HEAD"


def test_a_transaction_that_fails_as_webhooks_would_is_503(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a PgBouncer that mixes up prepared statements: single statements succeed, transactions do not."""
    asked = []

    def fail(*args: Any, **options: Any) -> Any:
        asked.append(args)
        raise psycopg.errors.InvalidSqlStatementName("prepared statement does not exist")

    monkeypatch.setattr(database, "transaction", fail)
    code, about, _ = get()
    assert (code, about["status"]) == (503, "down")
    assert asked
