"""Whether a turn may begin, and whether its result counts; when a lane that others shall work on is woken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conversations import turns
from conversations.contracts import Work
from conversations.handling import async_turns, turn_runner
from conversations.handling.backpressure import Backpressure
from conversations.handling.handler import TURNS_PER_HOLD, Handler
from conversations.handling.held import Held, Turn
from conversations.handling.turn_runner import TurnRunner
from conversations.lanes import lock
from conversations.waking import wake
from tests.handling.test_async_turns import TASK
from tests.kit.stack import wait_until

LANE, TENANT = 7_300_001, 5


def a_turn(lane: int = LANE, **found: Any) -> Turn:
    head = SimpleNamespace(id=lane, tenant_id=TENANT, suspect=False, **found)
    return Turn(Held(lane, False), cast(Any, head), cast(Any, SimpleNamespace(bot="b")))


class Reports:
    """Each turn that was reported, with the kind of its error ('' without one), or None if it did not run."""

    def __init__(self) -> None:
        self.all: list[tuple[Turn, str | None]] = []
        self.runner = TurnRunner(Backpressure(), lambda lane: self.may_begin, self._add)
        self.may_begin = True

    def _add(self, turn: Turn, output: turns.Output | None) -> None:
        self.all.append((turn, None if output is None else output.error_type))

    def wait(self, count: int) -> list[tuple[Turn, str | None]]:
        wait_until(lambda: len(self.all) >= count, 5, f"{count} reports")
        return self.all


@pytest.fixture
def short(settings: Any) -> None:
    settings.TURN_SECONDS = 0.2


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> async_turns.EventLoop:
    loop = async_turns.EventLoop()
    monkeypatch.setattr(turn_runner, "event_loop", lambda: loop)
    return loop


def test_a_turn_that_may_no_longer_begin_is_given_back_for_others() -> None:
    reports, turn = Reports(), a_turn()
    reports.may_begin = False
    reports.runner.begin(turn, TASK, lambda _: pytest.fail("it ran"))
    assert reports.wait(1) == [(turn, None)]
    assert turn.held.wakes == TENANT


def test_a_turn_for_which_there_is_no_thread_does_not_run_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller releases its lane, which another process may take."""
    reports, turn = Reports(), a_turn()

    def no_thread(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(reports.runner._threads, "submit", no_thread)
    with pytest.raises(RuntimeError):
        reports.runner.begin(turn, TASK, lambda turn: None)
    assert not reports.runner._start(turn, 1.0)
    assert not reports.all


def test_what_a_turn_returns_after_its_time_is_void(short: None) -> None:
    reports, turn, go_on, ended = Reports(), a_turn(), threading.Event(), threading.Event()

    def bot(_: turns.Turn) -> None:
        go_on.wait(10)
        ended.set()

    reports.runner.begin(turn, TASK, bot)
    assert reports.wait(1) == [(turn, "TurnTooLong")]
    assert turn.overdue
    assert reports.runner.overdue.is_set()
    go_on.set()
    assert ended.wait(5)
    reports.runner.begin(other := a_turn(LANE + 1), TASK, lambda _: None)
    assert reports.wait(2) == [(turn, "TurnTooLong"), (other, "")]


def test_turns_on_a_loop_that_does_not_answer_are_given_back_but_for_the_one_that_holds_it(
    short: None, loop: async_turns.EventLoop
) -> None:
    reports, culprit, innocent = Reports(), a_turn(), a_turn(LANE + 1)
    go_on, ended = threading.Event(), threading.Event()

    async def waits(_: turns.Turn) -> None:
        await asyncio.to_thread(go_on.wait, 10)
        ended.set()

    async def blocks(_: turns.Turn) -> None:
        go_on.wait(10)

    reports.runner.begin(innocent, TASK, waits)
    wait_until(lambda: innocent.began, 5, "it runs")
    reports.runner.begin(culprit, TASK, blocks)
    assert sorted(reports.wait(2), key=lambda each: each[0] is innocent) == [(culprit, "TurnTooLong"), (innocent, None)]
    assert innocent.held.wakes == TENANT
    go_on.set()
    assert ended.wait(5)
    reports.runner.begin(last := a_turn(LANE + 2), TASK, lambda _: None)
    assert reports.wait(3)[2:] == [(last, "")]


def lose(handler: Handler, turn: Turn) -> None:
    handler.locks.lost.add(LANE)
    handler._runner.begin(turn, TASK, lambda _: pytest.fail("it ran"))


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lose, id="given back"),
        pytest.param(lambda handler, turn: handler._continue(turn.held, turn.head, True, False), id="hold is over"),
        pytest.param(lambda handler, turn: handler._continue(turn.held, turn.head, False, True), id="moved"),
    ],
)
def test_a_lane_is_woken_for_others_once_its_lock_is_free(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, leave: Callable[[Handler, Turn], None]
) -> None:
    """Whoever took an earlier hint would find the lock taken; the word it leaves is lost where this process ends."""
    other, release, left = lock.Locks(Work.HANDLE, "other"), handler.locks.release, threading.Event()
    woken: list[tuple[list[int], int]] = []
    monkeypatch.setattr(wake, "handle", lambda lanes, tenant: woken.append((other.hold(lanes), tenant)))
    monkeypatch.setattr(handler.locks, "release", lambda *what, **how: left.wait(10) and release(*what, **how))
    turn = a_turn()
    turn.held.turns = TURNS_PER_HOLD
    assert handler.locks.hold([LANE]) == [LANE]
    leave(handler, turn)
    left.set()
    wait_until(lambda: woken, 5, "the wake")
    assert woken == [([LANE], TENANT)]
    other.release([LANE])
    other.stop()
