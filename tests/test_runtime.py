"""What a process has one of."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from conversations import installation, registry, runtime
from conversations.storing import intake


def test_threads_that_need_a_part_at_once_get_the_same_one() -> None:
    made: list[object] = []
    second = threading.Event()

    @runtime.kept
    def part() -> object:
        made.append(object())
        if len(made) == 2:
            second.set()
        second.wait(0.2)
        return made[-1]

    with ThreadPoolExecutor(2) as threads:
        assert len(set(threads.map(lambda _: part(), range(2)))) == 1
    assert len(made) == 1


def test_whoever_waits_for_the_database_keeps_nobody_from_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the writer's thread could wait for a caller that waits for it."""
    made = threading.Event()

    @runtime.kept
    def other() -> None:
        made.set()

    def read(*statement: Any) -> list[Any]:
        threading.Thread(target=other, daemon=True).start()
        assert made.wait(5)
        raise psycopg.OperationalError

    runtime.begin()
    monkeypatch.setattr(runtime, "read", read)
    for ask in (installation.identity_key, lambda: registry.channel(1)):
        made.clear()
        with pytest.raises(psycopg.OperationalError):
            ask()
        runtime.begin()


def test_a_process_that_stores_reads_through_its_writer_and_not_after_begin(own_database: str, settings: Any) -> None:
    writer = intake.writer()
    assert intake.writer() is writer
    assert runtime.read("SELECT current_setting('application_name') LIKE '%%store%%'") == [(True,)]
    settings.DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    assert runtime.read("SELECT 1") == [(1,)]
    runtime.begin()
    with pytest.raises(psycopg.OperationalError):
        runtime.read("SELECT 1")


def test_no_timed_call_comes_after_the_runtime_that_it_was_meant_for() -> None:
    """Else what one test leaves, a status to be written again say, is written into the database of the next."""
    called = threading.Event()
    runtime.timer().call_later(0.05, called.set)
    runtime.begin()
    assert not called.wait(0.3)


def test_a_child_has_nothing_of_its_parents() -> None:
    ours = runtime.current()
    child = os.fork()
    if not child:
        os._exit(0 if runtime.current() is not ours else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert runtime.current() is ours
