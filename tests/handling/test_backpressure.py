"""A task waits until the lanes in hand get on; those that never do keep the others from theirs only once."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from conversations import turns
from conversations.handling import backpressure
from conversations.handling.backpressure import IN_HAND
from conversations.handling.handler import Handler, Held
from tests.kit.stack import wait_until

A, B = "handle-1", "handle-2"  # two tenants' lines

_lanes = itertools.count(7_000_000)  # that nobody has


def take(handler: Handler, lanes: int, queue: str = A) -> list[int]:
    """Lanes that never get on."""
    taken = handler.locks.hold([next(_lanes) for _ in range(lanes)])
    handler._backpressure.enter(queue, taken)
    return taken


def task(handler: Handler, queue: str = A) -> threading.Thread:
    """A wake with one lane, in a thread of Celery's."""
    thread = threading.Thread(target=handler.handle, args=([next(_lanes)],), kwargs={"queue": queue}, daemon=True)
    thread.start()
    return thread


def test_a_task_waits_for_room(handler: Handler) -> None:
    stuck = take(handler, IN_HAND)
    waiting = task(handler)
    wait_until(lambda: handler._backpressure.waiting == 1, 5, "it waits")
    assert waiting.is_alive()
    handler._release_batch([Held(lane, False, 0) for lane in stuck[:1]])
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_task_does_not_wait_for_another_tenants_lanes(handler: Handler) -> None:
    take(handler, IN_HAND)
    waiting, other = task(handler), task(handler, B)
    other.join(5)
    assert not other.is_alive()
    assert waiting.is_alive()
    handler.stop(0.0)
    waiting.join(5)


def test_a_lane_that_a_bot_is_busy_with_is_not_waited_for(handler: Handler) -> None:
    taken = take(handler, IN_HAND)
    waiting = task(handler)
    wait_until(lambda: handler._backpressure.waiting == 1, 5, "it waits")
    handler._backpressure.mark_busy(taken[0])
    handler._backpressure.mark_busy(taken[1])
    waiting.join(5)
    assert not waiting.is_alive()


def test_lanes_that_never_get_on_are_waited_for_once(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    take(handler, 2 * IN_HAND)
    monkeypatch.setattr(backpressure, "PATIENCE_SECONDS", 0.3)
    first = task(handler)
    first.join(5)
    assert not first.is_alive()
    monkeypatch.setattr(backpressure, "PATIENCE_SECONDS", 3600.0)
    second = task(handler)
    second.join(5)
    assert not second.is_alive(), "the same lanes are waited for again"
    take(handler, IN_HAND)
    third = task(handler)
    wait_until(lambda: handler._backpressure.waiting == 1, 5, "others are")
    assert third.is_alive()
    handler.stop(0.0)
    third.join(5)


def test_a_lane_whose_failure_cannot_be_written_is_released(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text cannot be split, and the database goes away just then."""
    errors = iter([ValueError("split"), psycopg.OperationalError("away")])

    def judge(*given: Any) -> Any:
        raise next(errors)

    monkeypatch.setattr(handler, "_judge", judge)
    [lane] = handler.locks.hold([next(_lanes)])
    nothing = cast(Any, SimpleNamespace())
    handler._finish(Held(lane, False, 0), nothing, nothing, turns.Output(), 0.0)
    wait_until(lambda: not handler.locks.running(), 5, "the lane is let go")
