"""Postgres stopped, crashed, frozen and locked under load: 503 in time, and everything goes on by itself afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import psycopg
import pytest

from tests.kit.doubles import Double
from tests.kit.lanes import BOTS
from tests.kit.people import Crowd, open_channel
from tests.kit.shared import shared
from tests.kit.stack import Channel, Stack, wait_until

pytestmark = [pytest.mark.xdist_group("postgres-away"), pytest.mark.timeout(400)]

AWAY_SECONDS = 5.0


stack = shared(webs=2, env={**BOTS, "WEB_THREADS": "16"})


@pytest.fixture
def channel(stack: Stack, double: Double) -> Channel:
    return open_channel(stack, double)


def stop_fast(stack: Stack) -> None:
    stack.servers.postgres.stop()  # type: ignore[union-attr]
    time.sleep(AWAY_SECONDS)
    stack.servers.postgres.start()  # type: ignore[union-attr]


def stop_immediately(stack: Stack) -> None:
    stack.servers.postgres.stop_immediately()  # type: ignore[union-attr]
    time.sleep(AWAY_SECONDS)
    stack.servers.postgres.start()  # type: ignore[union-attr]


def freeze(stack: Stack) -> None:
    """The server and all its sessions."""
    pid = stack.servers.postgres.pid  # type: ignore[union-attr]
    assert pid is not None
    root = psutil.Process(pid)
    frozen = [pid, *(child.pid for child in root.children(recursive=True))]
    for each in frozen:
        os.kill(each, signal.SIGSTOP)
    try:
        time.sleep(AWAY_SECONDS)
    finally:
        for each in frozen:
            os.kill(each, signal.SIGCONT)


def lock_a_table(stack: Stack) -> None:
    """As a migration does that nobody looked at."""
    with psycopg.connect(stack.servers.database_url) as migration:
        migration.execute("LOCK TABLE message")
        time.sleep(AWAY_SECONDS)
        migration.rollback()


def processes(stack: Stack) -> list[set[int]]:
    """All that serve now: the web processes' trees, and the workers by their rows."""
    webs = {pid for process in stack._workers[:2] for pid in process.tree()}
    return [webs, *(set(stack.pids(role)) for role in ("handle", "send", "sweep"))]


@pytest.mark.slow
@pytest.mark.parametrize("hurt", [stop_fast, stop_immediately, freeze])
def test_with_postgres_away_webhooks_are_503_in_time_and_all_goes_on_without_a_restart(
    stack: Stack, channel: Channel, double: Double, hurt: Callable[[Stack], None]
) -> None:
    before = processes(stack)
    crowd = Crowd(stack, channel, range(1, 37))
    crowd.write_while(lambda: hurt(stack), heard=100)
    assert set(crowd.answers) == {200, 503}, "somebody got no answer in time, or another one"
    crowd.check_order(double)
    # One that could not write its beat for 6 s may have been taken for dead; it is the same process all the same.
    wait_until(lambda: processes(stack) == before, 20, "the same processes, and no other")
    crowd.check_turns()


@pytest.mark.slow
def test_with_a_table_locked_webhooks_are_503_in_time_and_what_was_accepted_is_stored_in_order(
    stack: Stack, channel: Channel, double: Double
) -> None:
    crowd = Crowd(stack, channel, range(1, 37))
    crowd.write_while(lambda: lock_a_table(stack), heard=100)
    assert set(crowd.answers) == {200, 503}, "somebody got no answer in time, or another one"
    crowd.check_order(double)
