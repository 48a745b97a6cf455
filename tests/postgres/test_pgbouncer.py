"""Everything through PgBouncer in transaction mode: sessions are handed on, and nothing is kept in one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from conversations.operating import deploy_checks
from conversations.postgres import database
from tests.kit import pgbouncer
from tests.kit.doubles import Double
from tests.kit.lanes import BOTS
from tests.kit.people import Crowd, open_channel
from tests.kit.stack import ROOT, Channel, Stack, wait_until

PROGRAM = pgbouncer.find()
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason=pgbouncer.MISSING),
    pytest.mark.xdist_group("pgbouncer"),
    pytest.mark.timeout(400),
    pytest.mark.slow,
]

AWAY_SECONDS = 3.0
# What our statements set for themselves. A session that kept one would give it to whoever has it next.
OURS = ("lock_timeout", "statement_timeout", "plan_cache_mode", "enable_seqscan", "jit", "app.locked")


class Pooled(Stack):
    """Its processes know PgBouncer only; the test's own looks go to Postgres."""

    def __init__(self, *, prepared: bool) -> None:
        super().__init__(webs=2, env=BOTS)
        self.prepared = prepared

    def _environment(self) -> dict[str, str]:
        env = super()._environment()
        through = pgbouncer.running(self.folder, self.servers.database_url, prepared=self.prepared)
        self.pooler = self._stack.enter_context(through)
        return {**env, "DATABASE_URL": self.pooler.url, "PREPARED_STATEMENTS": str(int(self.prepared))}


@pytest.fixture(scope="module", params=[False, True], ids=["unprepared", "prepared"])
def stack(request: pytest.FixtureRequest) -> Iterator[Pooled]:
    assert PROGRAM is not None
    if request.param and pgbouncer.version(PROGRAM) < pgbouncer.PREPARES_SINCE:
        pytest.skip("this pgbouncer is older than 1.22: PREPARED_STATEMENTS=0")
    stack = Pooled(prepared=request.param)
    with stack:
        stack.wait_for_workers("handle", "send", "sweep")
        yield stack


@pytest.fixture
def channel(stack: Pooled, double: Double) -> Channel:
    return open_channel(stack, double)


def nothing(stack: Pooled) -> None:
    """A quiet day."""


def kill_pgbouncer(stack: Pooled) -> None:
    stack.pooler.kill()
    time.sleep(AWAY_SECONDS)
    stack.pooler.start()


def stop_postgres(stack: Pooled) -> None:
    stack.servers.postgres.stop()  # type: ignore[union-attr]
    time.sleep(AWAY_SECONDS)
    stack.servers.postgres.start()  # type: ignore[union-attr]


@pytest.mark.parametrize("hurt", [nothing, kill_pgbouncer, stop_postgres])
def test_through_pgbouncer_all_is_answered_once_and_in_order(
    stack: Pooled, channel: Channel, double: Double, hurt: Callable[[Pooled], None]
) -> None:
    crowd = Crowd(stack, channel, range(1, 13))
    crowd.write_while(lambda: hurt(stack), heard=200)
    assert set(crowd.answers) <= ({200} if hurt is nothing else {200, 503})
    crowd.check_order(double)
    crowd.check_turns()


def test_no_session_keeps_what_our_statements_set(stack: Pooled, channel: Channel) -> None:
    with Crowd(stack, channel, range(1, 13)).writing() as crowd:
        wait_until(lambda: crowd.total() > 100, 20, "the crowd is heard")
    wait_until(stack.drained, 60, "all is handled and delivered")
    stack.manage("check")  # the ORM's connections, too
    with psycopg.connect(stack.servers.database_url) as untouched:
        wanted = settings_of(untouched)
    with contextlib.ExitStack() as open_sessions:
        for _ in range(pgbouncer.POOL - 2):  # a transaction each: as many sessions
            held = open_sessions.enter_context(psycopg.connect(stack.pooler.url))
            assert settings_of(held) == wanted


def test_prepared_statements_that_were_left_on_are_seen_where_they_do_not_work(stack: Pooled) -> None:
    env = {**stack.env, "PREPARED_STATEMENTS": "1"}
    done = subprocess.run([sys.executable, "manage.py", "check"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert ("conversations.E017" in done.stderr) is not stack.prepared, done.stderr


def settings_of(connection: psycopg.Connection[Any]) -> dict[str, str]:
    return {name: connection.execute(f"SELECT current_setting('{name}', true)").fetchone()[0] or "" for name in OURS}  # type: ignore[index]


def test_no_transaction_of_ours_compiles_a_plan_and_check_names_what_does(stack: Pooled, settings: Any) -> None:
    """A compiled plan takes longer than our limits. Behind PgBouncer no session of ours can turn JIT off for good."""
    settings.PREPARED_STATEMENTS = False
    for url, warnings in ((stack.servers.database_url, []), (stack.pooler.url, ["conversations.W104"])):
        settings.DATABASE_URL = url
        assert [each.id for each in deploy_checks.plans_are_not_compiled(None)] == warnings
        with contextlib.closing(database.connect("jit")) as connection:
            rows = database.transaction(connection, {"jit": ("SELECT current_setting(%s)", ("jit",))})
        assert rows == {"jit": [("off",)]}
