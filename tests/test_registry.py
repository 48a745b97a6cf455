"""Channels that the processes keep in memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from conversations import registry, runtime
from conversations.errors import CoreError

THREADS = 20


def test_a_database_that_refuses_connections_is_asked_once_for_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would connect in vain, one after the other, and hold a web thread meanwhile."""
    asked: list[Any] = []
    waiting: set[int] = set()  # threads that wait for the one that reads; each looks ten times a second
    others_wait = threading.Event()

    def note_that_it_waits() -> None:
        waiting.add(threading.get_ident())
        if len(waiting) == THREADS - 1:
            others_wait.set()

    def refused(*statement: Any) -> list[Any]:
        asked.append(statement)
        assert others_wait.wait(30)
        raise psycopg.OperationalError("too many connections")

    def look(number: int) -> None:
        with pytest.raises((psycopg.Error, CoreError)):
            registry.channel_by_public_id("telegram", "x" * 20)

    monkeypatch.setattr(runtime, "read", refused)
    monkeypatch.setattr(runtime.current(), "refuse_if_silent", note_that_it_waits)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(look, range(THREADS)))
    assert len(asked) == 1
    look(0)
    assert len(asked) == 2, "the next one asks again"


def test_a_webhook_waits_for_no_other_channels_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a slow database, one after the other takes longer than a webhook may."""
    first_reads, go_on = threading.Event(), threading.Event()

    def read(query: str, values: tuple[str]) -> list[Any]:
        if values == ("first",):
            first_reads.set()
            assert go_on.wait(10)
        return []

    monkeypatch.setattr(runtime, "read", read)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(registry.channel_by_public_id, "telegram", "first")
        assert first_reads.wait(10)
        registry.forget_channels()
        for number in range(20):
            registry.channel_by_public_id("telegram", f"other-{number}")
        go_on.set()
        first.result(10)


def test_the_checkout_of_a_bot_is_declared_with_it_and_is_a_plain_function(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load_bots()
    monkeypatch.setattr(registry, "_bots", {})
    monkeypatch.setattr(registry, "_checkouts", {})
    registry.bot("shop", checkout=bool)(print)
    assert registry.find_checkout("shop") is bool
    assert registry.find_checkout("other") is None
    registry.bot("shop")(print)
    assert registry.find_checkout("shop") is None

    async def waits(checkout: Any) -> bool:
        return True

    with pytest.raises(ValueError, match="plain function"):
        registry.bot("shop", checkout=waits)
