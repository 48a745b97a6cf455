"""A process takes hints while few lanes wait for it; lanes that never get on count for a moment only."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from conversations import turns
from conversations.handling import backpressure, verdicts
from conversations.handling.backpressure import IN_HAND
from conversations.handling.handler import SHORT_HOLD_SECONDS, Handler
from conversations.handling.held import Held, Turn
from conversations.lanes import pauses
from tests.kit.stack import wait_until

LONG = 60.0  # seconds; longer than any test waits

_lanes = itertools.count(7_000_000)  # that nobody has


def take(handler: Handler, lanes: int = IN_HAND) -> list[int]:
    """Lanes that never get on."""
    taken = handler.locks.hold([next(_lanes) for _ in range(lanes)])
    handler._backpressure.enter(taken)
    return taken


@pytest.fixture
def asking(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task that waits for room behind lanes in hand; what it was told."""
    monkeypatch.setattr(backpressure, "COUNTED_SECONDS", LONG)
    taken, told = take(handler), []
    thread = threading.Thread(target=lambda: told.append(handler.has_room(LONG)), daemon=True)
    thread.start()
    wait_until(lambda: handler._backpressure.waiting, 5, "it waits")
    assert not told
    yield SimpleNamespace(taken=taken, told=told)
    handler.stop(0.0)
    thread.join(5)


def test_a_task_waits_until_a_lane_is_released(handler: Handler, asking: Any) -> None:
    handler._backpressure.leave(asking.taken[:1])
    wait_until(lambda: asking.told == [True], 5, "there is room")


def test_a_lane_that_a_bot_is_busy_with_is_not_waited_for(handler: Handler, asking: Any) -> None:
    handler._backpressure.mark_busy(asking.taken[0])
    wait_until(lambda: asking.told == [True], 5, "there is room")
    handler._backpressure.mark_idle(asking.taken[0])
    assert not handler.has_room(0.0)


def test_a_process_that_stops_takes_nothing(handler: Handler, asking: Any) -> None:
    handler.stop(0.0)
    wait_until(lambda: asking.told == [False], 5, "it is told")


def test_lanes_that_never_get_on_count_for_a_moment_only(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "COUNTED_SECONDS", 0.2)
    take(handler)
    assert not handler.has_room(0.0)
    assert handler.has_room(LONG)
    take(handler)
    assert not handler.has_room(0.0), "others count anew"


def test_a_process_whose_turns_wait_for_threads_takes_no_more(handler: Handler) -> None:
    """However long they wait: else a slow tenant's process collects the lanes of all others."""
    [lane] = take(handler, 1)
    assert handler.has_room(0.0)
    handler._backpressure.mark_queued(lane)
    wait_until(lambda: not handler.has_room(0.0), 5, "it waits too long")
    handler._backpressure.mark_busy(lane)
    assert handler.has_room(0.0)


@pytest.mark.parametrize("probe", [False, True])
def test_a_waiting_task_shortens_every_hold_but_that_of_a_probe(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, probe: bool
) -> None:
    """A probe would come back as an ordinary lane, and its paused bot would stay untried."""
    handler._backpressure.waiting = True
    released: list[Held] = []
    monkeypatch.setattr(handler._reads, "put", lambda lanes: None)
    monkeypatch.setattr(handler._releases, "put", released.extend)
    held = Held(next(_lanes), probe)
    held.since -= SHORT_HOLD_SECONDS
    handler._continue(held, cast(Any, SimpleNamespace(tenant_id=1)), behind=True, moved=False)
    assert released == ([] if probe else [held])


def test_a_lane_whose_failure_cannot_be_written_is_released(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text cannot be split, and the database goes away just then."""

    def split(*given: Any) -> Any:
        raise ValueError("split")

    def count(*given: Any) -> Any:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(verdicts, "success", split)
    monkeypatch.setattr(pauses, "count_turn", count)
    [lane] = handler.locks.hold([next(_lanes)])
    head = cast(Any, SimpleNamespace(id=lane, state=None))
    handler._finish(Turn(Held(lane, False), head, cast(Any, None)), turns.Output())
    wait_until(lambda: not handler.locks.running(), 5, "the lane is let go")
