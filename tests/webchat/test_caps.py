"""An address begins so many conversations; what is remembered of addresses is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from channels_ingest.webchat import caps
from conversations.contracts import ChannelConfig


class Clock:
    """Stands still until it is told."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(caps, "time", stopped)
    return stopped


def test_a_burst_passes_then_one_per_interval(clock: Clock) -> None:
    cap = caps.Cap()
    assert [cap.wait("a", 30, 3) for _ in range(3)] == [0, 0, 0]
    assert cap.wait("a", 30, 3) == 30
    assert cap.wait("b", 30, 3) == 0
    clock.now += 30
    assert cap.wait("a", 30, 3) == 0
    assert cap.wait("a", 30, 3) == 30


def test_a_refused_one_does_not_make_the_wait_longer(clock: Clock) -> None:
    cap = caps.Cap()
    cap.wait("a", 30, 1)
    assert {cap.wait("a", 30, 1) for _ in range(100)} == {30}


def test_an_event_counts_under_all_of_its_limits_or_under_none(clock: Clock) -> None:
    cap = caps.Cap()
    address = caps.Limit("address", 10, 2)
    assert [cap.wait_for_all([caps.Limit(name, 30, 1), address]) for name in "abc"] == [0, 0, 10]
    assert cap.wait("c", 30, 1) == 0  # the refused one did not count


def test_what_is_given_back_may_be_used_again(clock: Clock) -> None:
    cap, limit = caps.Cap(), caps.Limit("a", 30, 1)
    assert [cap.wait_for_all([limit]), cap.wait_for_all([limit])] == [0, 30]
    cap.give_back([limit], 0.9)
    assert cap.wait_for_all([limit]) == pytest.approx(3)


def test_memory_is_bounded_and_the_longest_unseen_goes_first() -> None:
    cap = caps.Cap(keys=100)
    for number in range(1000):
        cap.wait("busy", 3600, 1)
        cap.wait(number, 3600, 1)
    assert len(cap) == 100
    assert cap.wait("busy", 3600, 1) > 0


@pytest.mark.parametrize(("options", "per_hour"), [
    ({}, 120), ({"new_per_hour": 5}, 5), ({"new_per_hour": "0"}, 0), ({"new_per_hour": "?"}, 120),
])  # fmt: skip
def test_the_channel_may_say_how_many(options: dict[str, Any], per_hour: int) -> None:
    channel = ChannelConfig(id=1, public_id="one", platform="web", tenant_id=1, options=options)
    assert caps.new_per_hour(channel) == per_hour
