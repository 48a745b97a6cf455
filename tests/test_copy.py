"""A copy of production, started under another PUBLIC_URL, writes to nobody until it is adopted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from conversations import runtime
from conversations.models import Conversation
from tests.conftest import Addresses
from tests.kit import desk_scenes
from tests.kit.doubles import Double
from tests.kit.fixtures import CREDENTIALS
from tests.kit.running import manage, until, workers

REPLIES = 100
STAGING = "http://127.0.0.2:8000"


@pytest.fixture
def copy(own_database: str, servers: Addresses, double: Double, httpserver: Any) -> Iterator[dict[str, str]]:
    """The environment of staging: a real copy of a database with pending replies, and a message to an http bot."""
    bot_url = httpserver.url_for("/bot")
    asked = desk_scenes.make_channel(bot="http", options={"bot_url": bot_url})
    asked.set_credentials({"secret": CREDENTIALS["secret"]})
    asked.save()
    desk_scenes.make_lane("pending", channel=asked, due_at=timezone.now())
    channel = desk_scenes.make_channel(platform="telegram", api_base=double.url, options={"limits": "off"})
    channel.set_credentials({"token": "4242:token", "secret_token": "s" * 32})
    channel.save()
    for number in range(REPLIES):
        lane = desk_scenes.make_lane(replies="pending", channel=channel, send_due_at=timezone.now())
        Conversation.objects.filter(pk=lane.pk).update(chat=str(9000 + number), user=str(9000 + number))
    runtime.begin()
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]
    source = urlsplit(own_database)
    name = f"{source.path[1:]}_copy"
    with psycopg.connect(source._replace(path="/postgres").geturl(), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[arg-type]
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source.path[1:]}"')  # type: ignore[arg-type]
        url = source._replace(path=f"/{name}").geturl()
        yield {**os.environ, "DATABASE_URL": url, "REDIS_URL": servers.redis_url, "PUBLIC_URL": STAGING}
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[arg-type]


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as double:
        yield double


def is_sweeping(environment: dict[str, str]) -> bool:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(DISTINCT kind) FROM worker WHERE NOT dead AND beat > 1").fetchone()
    return row is not None and row[0] == 3


@pytest.mark.slow
def test_a_copy_sends_nothing_until_it_is_adopted(
    copy: dict[str, str], double: Double, tmp_path: Path, httpserver: Any
) -> None:
    httpserver.expect_request("/bot").respond_with_data("")
    with workers(copy, tmp_path / "log"):
        until(lambda: is_sweeping(copy), 30)
        time.sleep(6)
        assert double.calls() == []
        assert httpserver.log == []
        with psycopg.connect(copy["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT count(*) FROM turn").fetchone() == (0,)
        assert STAGING in manage(copy, "adopt_database", "--yes")
        until(lambda: len(double.accepted("sendMessage")) >= REPLIES and bool(httpserver.log), 40)
    assert len(double.accepted("sendMessage")) == REPLIES


@pytest.mark.slow
def test_a_copy_sends_only_to_those_named(copy: dict[str, str], double: Double, tmp_path: Path) -> None:
    with psycopg.connect(copy["DATABASE_URL"]) as connection:
        query = """SELECT public_id, "user" FROM conversation c JOIN channel ch ON ch.id = channel_id
                    WHERE ch.platform = 'telegram' ORDER BY c.id LIMIT 1"""
        shop, me = connection.execute(query).fetchone() or ("", "")
    with workers({**copy, "SEND_ONLY_TO": f"{shop}:somebody,{shop}:{me}"}, tmp_path / "log"):
        until(lambda: bool(double.accepted("sendMessage")), 30)
        time.sleep(4)
    assert [each["chat"] for each in double.accepted("sendMessage")] == [me]
