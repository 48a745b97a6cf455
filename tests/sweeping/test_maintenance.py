"""Upkeep takes away what is over, and nothing else."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
import time_machine

from conversations import runtime
from conversations.operating import maintenance
from conversations.sweeping import sweeper
from tests.kit.entries import make_channel


def test_a_wait_that_a_platform_asked_for_is_forgotten_a_day_after_its_end(own_database: str) -> None:
    channel = make_channel()
    for key, age in (("chat:long ago", "25 hours"), ("chat:today", "23 hours"), ("channel", "-1 hour")):
        values = {"c": channel.id, "key": key, "age": age}
        runtime.execute("""INSERT INTO bucket (channel_id, key, blocked_until)
                           VALUES (%(c)s, %(key)s, now() - %(age)s::interval)""", values)  # fmt: skip
    assert maintenance.run()["buckets"] == 1
    assert runtime.read("SELECT key FROM bucket ORDER BY key") == [("channel",), ("chat:today",)]


def test_partitions_are_made_and_dropped_by_the_clock_of_the_database(own_database: str) -> None:
    count = "SELECT count(*) FROM pg_class WHERE relname ~ '^receipt_body_[0-9]{8}$'"
    maintenance.make_partitions()
    before = runtime.read(count)
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(days=400)):
        assert (maintenance.make_partitions(), maintenance.drop_partitions()) == (0, 0)
    assert runtime.read(count) == before


def test_failed_logins_of_yesterday_and_sessions_that_are_over_are_forgotten(own_database: str) -> None:
    runtime.execute("""INSERT INTO axes_accessattempt (user_agent, username, http_accept, path_info, attempt_time,
                                                        get_data, post_data, failures_since_start)
                        SELECT '', age, '', '', now() - age::interval, '', '', 1
                          FROM unnest(ARRAY['25 hours', '23 hours']) age""")
    runtime.execute("""INSERT INTO django_session (session_key, session_data, expire_date)
                        SELECT age, '', now() - age::interval FROM unnest(ARRAY['1 second', '-1 hour']) age""")
    assert maintenance.run()["logins"] == 2
    assert runtime.read("SELECT username FROM axes_accessattempt") == [("23 hours",)]
    assert runtime.read("SELECT session_key FROM django_session") == [("-1 hour",)]


def test_without_a_broker_the_upkeep_holds_up_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise ConnectionError

    go, done = threading.Event(), threading.Event()
    monkeypatch.setattr(sweeper.publisher, "maintain", away)
    monkeypatch.setattr(sweeper.maintenance, "run", lambda: go.wait(5) and done.set())
    ours = sweeper.Sweeper(None, None)  # type: ignore[arg-type]
    ours._upkeep_at = 0.0
    ours._upkeep()
    go.set()
    assert done.wait(5)


def test_upkeep_does_without_the_tables_of_staffs_pages(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = runtime.read
    monkeypatch.setattr(runtime, "read", lambda *query: [] if "pg_class WHERE relkind" in query[0] else read(*query))
    assert maintenance.run()["logins"] == 0
