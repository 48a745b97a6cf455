"""Failures at the edges of the core's own steps: each costs one lane, one statement or one probe, no more."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from conversations import runtime, turns
from conversations.delivering.limiter import Limiter, Request
from conversations.lanes import pauses
from conversations.models import Pause
from conversations.postgres import database, reads
from conversations.storing import intake
from conversations.sweeping import dead_workers, sweeper
from tests.kit.entries import make_channel


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_error_whose_words_cannot_be_had_is_still_a_failed_turn() -> None:
    output = turns.failed(Unspeakable())
    assert output.error_type.endswith("Unspeakable")
    assert output.error_text == ""


def test_a_statement_that_fails_repeats_none_of_those_beside_it(own_database: str) -> None:
    connection = database.connect("test")
    connection.execute("CREATE TEMP TABLE counted (n int)")
    insert = ("INSERT INTO counted VALUES (1) RETURNING n", ())
    results = reads.STATEMENTS.write(connection, [insert, ("SELECT 1/0", ()), insert])
    assert results[0] == results[2] == [(1,)]
    assert isinstance(results[1], psycopg.errors.DivisionByZero)
    assert connection.execute("SELECT count(*) FROM counted").fetchone() == (2,)
    connection.close()


def test_a_read_that_the_database_refuses_raises_its_own_error(own_database: str) -> None:
    intake.writer()
    with pytest.raises(psycopg.errors.DivisionByZero):
        runtime.read("SELECT 1/0")
    assert runtime.read("SELECT 1") == [(1,)]


def test_a_platforms_words_that_cannot_be_stored_block_all_the_same(own_database: str) -> None:
    request = Request(channel=make_channel(), chat="c", is_group=False, limits=())
    Limiter().block(request, "chat", 30.0, "come back \ud800 later\0")
    ((words,),) = runtime.read("SELECT words FROM bucket")
    assert words == "come back \ufffd later\ufffd"


def test_a_probe_goes_through_no_stop_of_staff(own_database: str) -> None:
    named = (("bot", "orders"), ("tenant", "1"), ("channel", "7"))
    bot, tenant, channel = (pauses.Key(*name, "handling") for name in named)
    since = timezone.now()
    for key, by_staff in ((bot, False), (tenant, True), (channel, False)):
        Pause.objects.create(**key._asdict(), since=since, by_staff=by_staff)

    def may(channel: int, tenant: int, bot_name: str = "orders") -> bool:
        return sweeper._may_probe(bot, channel, tenant, bot_name)

    assert may(7, tenant=2), "its bot and its channel fail: one success ends both"
    assert not may(7, tenant=1)
    assert not may(7, tenant=2, bot_name="another")


def test_a_process_that_beat_meanwhile_is_not_buried(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[Any] = []
    answers = {"SELECT kind": [("send", [7])]}
    monkeypatch.setattr(dead_workers.runtime, "read", lambda query, values=(): answers.get(query[:11], []))
    monkeypatch.setattr(dead_workers.runtime, "execute", lambda query, values=(): [])  # mark_dead changes no row
    monkeypatch.setattr(dead_workers.lock, "free", lambda *arguments: settled.append(arguments))
    monkeypatch.setattr(dead_workers, "settle", lambda writer, claim: settled.append(claim))
    dead_workers.recover(None, uuid.uuid4(), 10)  # type: ignore[arg-type]
    assert settled == []
