"""Upkeep takes away what is over, and nothing else."""

from __future__ import annotations

from conversations.postgres import database
from conversations.sweeping import maintenance
from tests.kit.entries import make_channel


def test_a_wait_that_a_platform_asked_for_is_forgotten_a_day_after_its_end(own_database: str) -> None:
    channel = make_channel()
    for key, age in (("chat:long ago", "25 hours"), ("chat:today", "23 hours"), ("channel", "-1 hour")):
        database.execute(
            "INSERT INTO bucket (channel_id, key, blocked_until) VALUES (%(c)s, %(key)s, now() - %(age)s::interval)",
            {"c": channel.id, "key": key, "age": age},
        )
    assert maintenance.run()["buckets"] == 1
    assert database.read("SELECT key FROM bucket ORDER BY key") == [("channel",), ("chat:today",)]
