"""Typing and presses: what a platform is told beside messages. Nobody waits for it, and it may fail."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conversations.acts import acknowledgements
from conversations.acts.acknowledgements import Acts
from conversations.handling.held import Held, Turn
from conversations.handling.turn_runner import TYPING_SECONDS
from tests.handling.test_async_turns import TASK
from tests.handling.test_turn_runner import Reports
from tests.kit.stack import wait_until

CHANNEL = cast(Any, SimpleNamespace(id=1, bot="b", platform="fake"))


class Platform:
    """An adapter that notes what it is told, and answers when the test says so."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.acknowledged: list[Any] = []
        self.answers = threading.Event()
        self.answers.set()
        self.result: float | Exception = 5.0

    def show_typing(self, channel: Any, address: Any, message_id: str) -> float:
        self.shown.append(message_id)
        self.answers.wait(60)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def acknowledge(self, channel: Any, data: Any) -> None:
        self.acknowledged.append(data)


class SlowTurns(Reports):
    """Turns that end when the test says so, on a runner of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def begin(self, number: int) -> Turn:
        head = SimpleNamespace(id=7_400_000 + number, tenant_id=5, suspect=False, user="u", chat="c", is_group=False,
                               address={"chat": "c"}, platform_id=f"m{number}")  # fmt: skip
        turn = Turn(Held(head.id, False), cast(Any, head), CHANNEL)
        self.runner.begin(turn, TASK, lambda _: self.go_on.wait(60))
        wait_until(lambda: turn.began, 5, "it runs")
        return turn

    def show(self, *turns: Turn) -> None:
        """Let it be time for typing in these turns, and look."""
        for turn in turns:
            turn.typing_at = 0.0
        self.runner._show_typing()


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    ours = Platform()
    monkeypatch.setattr(acknowledgements.registry, "adapter", lambda name: ours)
    monkeypatch.setattr(acknowledgements.installation, "may_send_to", lambda *_: True)
    yield ours
    ours.answers.set()


def test_typing_is_shown_while_a_turn_takes_long_and_not_after_its_end(platform: Platform) -> None:
    turns = SlowTurns()
    turn = turns.begin(1)
    assert turn.typing_at == turn.began + TYPING_SECONDS, "a turn that ends sooner costs no call"
    turns.show(turn)
    wait_until(lambda: turn.typing_at < math.inf, 5, "it is shown")
    assert time.monotonic() < turn.typing_at < time.monotonic() + 5
    turns.runner._show_typing()
    assert platform.shown == ["m1"]
    turns.show(turn)
    wait_until(lambda: len(platform.shown) == 2, 5, "it is shown again")
    turns.go_on.set()
    turns.wait(1)
    turns.show(turn)
    assert platform.shown == ["m1", "m1"]


@pytest.mark.parametrize("result", [0.0, RuntimeError("refused")], ids=["not shown", "raised"])
def test_what_a_platform_does_not_show_is_not_asked_for_again(platform: Platform, result: Any) -> None:
    turns, platform.result = SlowTurns(), result
    turns.show(turn := turns.begin(1))
    wait_until(lambda: platform.shown, 5, "it was asked")
    turns.show(other := turns.begin(2))
    wait_until(lambda: platform.shown == ["m1", "m2"], 5, "the next one")
    assert turn.typing_at == other.typing_at == math.inf
    turns.go_on.set()
    assert [error for _, error in turns.wait(2)] == ["", ""]


def test_a_platform_that_hangs_holds_up_no_turn_and_no_press_and_nothing_is_shown_late(platform: Platform) -> None:
    turns = SlowTurns()
    platform.answers.clear()
    many = [turns.begin(number) for number in range(acknowledgements.THREADS + 1)]
    for count, turn in enumerate(many[:-1], 1):
        turns.show(turn)
        wait_until(lambda count=count: len(platform.shown) == count, 5, "a call that hangs")
    turns.show(many[-1])
    acknowledgements.acknowledge(CHANNEL, "u", "c", False, {"callback_query_id": "1"})
    wait_until(lambda: platform.acknowledged, 5, "the press")
    turns.go_on.set()
    assert [error for _, error in turns.wait(len(many))] == [""] * len(many)
    platform.answers.set()
    later = SlowTurns()
    later.show(later.begin(99))
    wait_until(lambda: "m99" in platform.shown, 5, "a later turn's")
    later.go_on.set()
    assert len(platform.shown) == len(many), "the one that waited for a thread is over"


def test_acts_over_the_limit_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "WAITING", 1)
    acts, go_on = Acts("test"), threading.Event()
    assert acts.start(lambda _: go_on.wait(10), CHANNEL)
    assert not acts.start(lambda _: None, CHANNEL)
    go_on.set()
    wait_until(lambda: acts.start(lambda _: None, CHANNEL), 5, "a place")
