"""Channels' shares of the calls that run at once."""

from __future__ import annotations

import pytest

from conversations.delivering import bulkhead
from conversations.delivering.bulkhead import CALLS, CALLS_PER_CHANNEL, CALLS_WHEN_BUSY, Bulkhead
from conversations.delivering.lane import Lane


def begin(calls: Bulkhead, channel: int, times: int) -> list[Lane]:
    lanes = [Lane(n) for n in range(times)]
    for lane in lanes:
        calls.take(lane, channel)
    return lanes


def ids(lanes: list[Lane]) -> list[int]:
    return [lane.id for lane in lanes]


def test_a_channel_has_its_share_and_others_theirs() -> None:
    calls = Bulkhead()
    assert not calls
    first, *_ = begin(calls, 1, CALLS_PER_CHANNEL)
    assert (calls.free_slots(1), calls.free_slots(2)) == (0, CALLS_PER_CHANNEL)
    calls.take(first, 1)
    assert calls.free_slots(1) == 0, "it has one"
    for _ in range(2):
        calls.free(first)
    assert calls
    assert (calls.free_slots(1), first.slot) == (1, 0)


def test_when_half_of_all_calls_run_every_channel_has_few() -> None:
    calls = Bulkhead()
    hanging = CALLS // 2 // CALLS_PER_CHANNEL
    for channel in range(hanging):
        begin(calls, channel, CALLS_PER_CHANNEL)
    assert calls.free_slots(hanging) == CALLS_WHEN_BUSY
    assert calls.free_slots(0) < 0
    assert calls.start_waiting() == []
    for channel in range(hanging, CALLS):
        begin(calls, channel, max(0, calls.free_slots(channel)))
    assert calls.free_slots(CALLS) == 0, "none is left"


def test_who_waits_longest_is_called_first() -> None:
    calls = Bulkhead()
    running = begin(calls, 1, CALLS_PER_CHANNEL)
    assert [calls.enqueue(Lane(n), 1) for n in (7, 8, 9)] == [0, 1, 2]
    assert calls.start_waiting() == []
    calls.free(running[0])
    (started,) = calls.start_waiting()
    assert (started.id, started.slot) == (7, 1)
    for lane in running[1:3]:
        calls.free(lane)
    assert ids(calls.start_waiting()) == [8, 9]


def test_when_calls_of_many_channels_end_no_more_begin_than_there_is_room_for() -> None:
    """Each channel alone might have its whole share then; all of them together may not."""
    calls = Bulkhead()
    running = {channel: begin(calls, channel, CALLS_PER_CHANNEL if channel <= 4 else 1) for channel in range(1, 31)}
    for channel in running:
        for n in range(200):
            calls.enqueue(Lane(n), channel)
    started = calls.start_waiting()
    most = dict.fromkeys(range(5, 31), CALLS_WHEN_BUSY - 1)
    assert {channel: [lane.slot for lane in started].count(channel) for channel in most} == most, "each has few"
    for channel in (1, 2):
        for lane in running[channel][:90]:
            calls.free(lane)
    calls.start_waiting()
    assert calls.free_slots(1000) == CALLS_WHEN_BUSY, "for others there is room"


def test_a_full_queue_refuses_the_next_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "WAITING_LANES", 2)
    calls = Bulkhead()
    assert [calls.enqueue(Lane(n), 1) for n in (1, 2, 3)] == [0, 1, -1]
    assert calls.enqueue(Lane(3), 2) == 0
    assert ids(calls.start_waiting()) == [1, 2, 3]
