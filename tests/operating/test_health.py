"""/healthz/ answers in time, whatever is away, frozen or black-holed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from conversations.lanes import redis_client
from tests.conftest import forget

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
    forget()
    code, about, seconds = get()
    assert code == 503
    assert seconds < SECONDS
    assert "s3cret" not in str(about)
    assert get()[2] < SECONDS


def test_redis_away_is_still_200(own_database: str, settings: Any, black_hole: str) -> None:
    settings.REDIS_URL = f"redis://:s3cret@{black_hole}/0"
    redis_client.client.cache_clear()
    code, about, seconds = get()
    redis_client.client.cache_clear()
    assert code == 200
    assert seconds < SECONDS
    assert about["redis"] != "ok"
    assert "s3cret" not in str(about)


def test_a_read_only_database_is_503(own_database: str, settings: Any) -> None:
    """After a failover, or when the plan is full."""
    settings.DATABASE_URL = own_database + "?options=-c%20default_transaction_read_only%3Don"
    forget()
    code, about, _ = get()
    assert (code, about["storing"]) == (503, "read-only")


def test_needs_no_cookie_and_no_session(own_database: str) -> None:
    answer = Client().get("/healthz/")
    assert not answer.cookies
    assert answer["Cache-Control"] == "no-store"
