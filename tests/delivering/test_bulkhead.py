"""Channels' shares of the calls that run at once."""

from __future__ import annotations

import pytest

from conversations.delivering import bulkhead
from conversations.delivering.bulkhead import CALLS, CALLS_PER_CHANNEL, SCARCE, Bulkhead


def begin(calls: Bulkhead[str], channel: int, times: int) -> None:
    for _ in range(times):
        calls.begin(channel)


def test_a_channel_has_its_share_and_others_theirs() -> None:
    calls: Bulkhead[str] = Bulkhead()
    assert not calls
    begin(calls, 1, CALLS_PER_CHANNEL)
    assert (calls.room(1), calls.room(2)) == (0, CALLS_PER_CHANNEL)
    calls.end(1)
    assert calls
    assert calls.room(1) == 1


def test_when_half_of_all_calls_run_every_channel_has_few() -> None:
    calls: Bulkhead[str] = Bulkhead()
    hanging = CALLS // 2 // CALLS_PER_CHANNEL
    for channel in range(hanging):
        begin(calls, channel, CALLS_PER_CHANNEL)
    assert calls.room(hanging) == SCARCE
    assert calls.room(0) < 0
    assert calls.call({}) == []
    for channel in range(hanging, CALLS):
        begin(calls, channel, max(0, calls.room(channel)))
    assert calls.room(CALLS) == 0, "none is left"


def test_who_waits_longest_is_called_first_where_nobody_goes_on() -> None:
    calls: Bulkhead[str] = Bulkhead()
    begin(calls, 1, CALLS_PER_CHANNEL)
    assert [calls.stand_in_line(1, name) for name in ("a", "b", "c")] == [0, 1, 2]
    assert not calls.may_call()
    for _ in range(3):
        calls.end(1)
    assert calls.may_call()
    assert calls.call({1: 2}) == ["a"], "two of the three that are free are kept"
    assert calls.call({}) == ["b", "c"]
    assert not calls.may_call()


def test_when_calls_of_many_channels_end_no_more_begin_than_there_is_room_for() -> None:
    """Each channel alone might have its whole share then; all of them together may not."""
    calls: Bulkhead[int] = Bulkhead()
    for channel in range(30):
        begin(calls, channel, CALLS_PER_CHANNEL if channel < 4 else 1)
        for lane in range(200):
            calls.stand_in_line(channel, lane)
    assert calls.call({}) == list(range(SCARCE - 1)) * 26, "each has few"
    for channel in (0, 1):
        for _ in range(90):
            calls.end(channel)
    calls.call({})
    assert calls.room(1000) == SCARCE, "for others there is room"


def test_a_full_line_takes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "CROWD", 2)
    calls: Bulkhead[str] = Bulkhead()
    assert [calls.stand_in_line(1, name) for name in ("a", "b", "c")] == [0, 1, -1]
    assert calls.stand_in_line(2, "c") == 0
    assert calls.call({}) == ["a", "b", "c"]
