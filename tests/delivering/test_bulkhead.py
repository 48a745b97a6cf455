"""Channels' shares of the calls that run at once."""

from __future__ import annotations

import pytest

from conversations.delivering import bulkhead
from conversations.delivering.bulkhead import CALLS, CALLS_PER_CHANNEL, CALLS_WHEN_BUSY, Bulkhead


def begin(calls: Bulkhead[str], channel: int, times: int) -> None:
    for _ in range(times):
        calls.take_slot(channel)


def test_a_channel_has_its_share_and_others_theirs() -> None:
    calls: Bulkhead[str] = Bulkhead()
    assert not calls
    begin(calls, 1, CALLS_PER_CHANNEL)
    assert (calls.free_slots(1), calls.free_slots(2)) == (0, CALLS_PER_CHANNEL)
    calls.free_slot(1)
    assert calls
    assert calls.free_slots(1) == 1


def test_when_half_of_all_calls_run_every_channel_has_few() -> None:
    calls: Bulkhead[str] = Bulkhead()
    hanging = CALLS // 2 // CALLS_PER_CHANNEL
    for channel in range(hanging):
        begin(calls, channel, CALLS_PER_CHANNEL)
    assert calls.free_slots(hanging) == CALLS_WHEN_BUSY
    assert calls.free_slots(0) < 0
    assert calls.start_waiting({}) == []
    for channel in range(hanging, CALLS):
        begin(calls, channel, max(0, calls.free_slots(channel)))
    assert calls.free_slots(CALLS) == 0, "none is left"


def test_who_waits_longest_is_called_first_where_nobody_goes_on() -> None:
    calls: Bulkhead[str] = Bulkhead()
    begin(calls, 1, CALLS_PER_CHANNEL)
    assert [calls.enqueue(1, name) for name in ("a", "b", "c")] == [0, 1, 2]
    assert not calls.has_startable()
    for _ in range(3):
        calls.free_slot(1)
    assert calls.has_startable()
    assert calls.start_waiting({1: 2}) == ["a"], "two of the three that are free are kept"
    assert calls.start_waiting({}) == ["b", "c"]
    assert not calls.has_startable()


def test_when_calls_of_many_channels_end_no_more_begin_than_there_is_room_for() -> None:
    """Each channel alone might have its whole share then; all of them together may not."""
    calls: Bulkhead[int] = Bulkhead()
    for channel in range(30):
        begin(calls, channel, CALLS_PER_CHANNEL if channel < 4 else 1)
        for lane in range(200):
            calls.enqueue(channel, lane)
    assert calls.start_waiting({}) == list(range(CALLS_WHEN_BUSY - 1)) * 26, "each has few"
    for channel in (0, 1):
        for _ in range(90):
            calls.free_slot(channel)
    calls.start_waiting({})
    assert calls.free_slots(1000) == CALLS_WHEN_BUSY, "for others there is room"


def test_a_full_queue_refuses_the_next_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "WAITING_LANES", 2)
    calls: Bulkhead[str] = Bulkhead()
    assert [calls.enqueue(1, name) for name in ("a", "b", "c")] == [0, 1, -1]
    assert calls.enqueue(2, "c") == 0
    assert calls.start_waiting({}) == ["a", "b", "c"]
