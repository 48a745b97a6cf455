"""A stage: what it takes together, and what its death means."""

from __future__ import annotations

import threading

import pytest

from conversations import concurrency
from conversations.concurrency import Stage
from tests.kit.stack import wait_until


def test_what_came_while_it_was_on_its_way_goes_together_in_its_order() -> None:
    trips: list[list[int]] = []
    free = threading.Semaphore(0)

    def work(loads: list[int]) -> None:
        trips.append(loads)
        assert free.acquire(timeout=20)

    stage = Stage("test", work, 4)
    stage.put([1])
    wait_until(lambda: trips == [[1]], 5, "it is on its way")
    stage.put([2, 3])
    stage.put(iter([4, 5, 6]))
    free.release(10)
    wait_until(lambda: len(trips) == 3, 5, "all went")
    assert trips == [[1], [2, 3, 4, 5], [6]]


def test_a_stage_that_fails_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lanes would stay in hand for ever."""
    ended = threading.Event()
    monkeypatch.setattr(concurrency, "end_process", ended.set)

    def work(loads: list[int]) -> None:
        raise RuntimeError("no")

    Stage("test", work, 4).put([1])
    assert ended.wait(5)
