"""Locks of lanes that no script of ours leaves behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import structlog

from conversations.contracts import Work
from conversations.lanes import lock, redis_client
from tests.lanes.test_redis_cluster import locks_of

LANES = FOR_EVER, OTHER, FREE = 7_100_001, 7_100_002, 7_100_003  # that nobody has


def test_a_lock_without_an_expiry_gets_one_also_from_its_owner() -> None:
    client, keys = redis_client.client(), {lane: lock.key(Work.HANDLE, lane) for lane in LANES}
    client.delete(*keys.values())
    client.hset(keys[FOR_EVER], "o", "nobody")
    client.hset(keys[OTHER], "o", "somebody")
    client.pexpire(keys[OTHER], 1_000)
    mine = locks_of(Work.HANDLE, "me")
    with structlog.testing.capture_logs() as logged:
        assert mine.hold(LANES) == mine.running() == [FREE]
    assert 1_000 < client.pttl(keys[FOR_EVER]) <= 6_000
    assert client.pttl(keys[OTHER]) <= 1_000
    assert any("no expiry" in line["event"] for line in logged)
    client.persist(keys[FREE])
    mine._renew()
    assert client.pttl(keys[FREE]) > 0


def test_who_begins_again_lost_the_lanes_in_hand_and_gets_none_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper took the process for dead, and freed its locks: others may work on these lanes."""
    mine, run_script = locks_of(Work.HANDLE, "first life"), lock.run_script
    assert mine.hold([7_100_004]) == [7_100_004]

    def taken_for_dead_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(lock, "run_script", run_script)
        answers = run_script(*arguments)
        mine.begin_again("second life")
        return answers

    monkeypatch.setattr(lock, "run_script", taken_for_dead_meanwhile)
    assert mine.hold([7_100_005]) == []
    assert mine.lost == {7_100_004}
    assert locks_of(Work.HANDLE, "another").hold([7_100_005]) == [7_100_005], "nobody holds it for nothing"
    lock.free(Work.HANDLE, "another", [7_100_005])
    lock.free(Work.HANDLE, "first life", [7_100_004])
    mine.release([7_100_004])
    assert mine.hold([7_100_004, 7_100_006]) == [7_100_004, 7_100_006]
    assert not mine.lost
    mine.release(mine.running())


def test_a_renewal_that_comes_while_a_process_stops_takes_no_lock_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, run_script = locks_of(Work.SEND, "mine"), lock.run_script
    assert mine.hold([7_100_011]) == [7_100_011]
    renewal = threading.Thread(target=mine._renew)

    def renewed_meanwhile(name: str, *arguments: Any) -> Any:
        if name == "release" and renewal.ident is None:
            renewal.start()
        return run_script(name, *arguments)

    monkeypatch.setattr(lock, "run_script", renewed_meanwhile)
    mine.stop()
    renewal.join()
    assert locks_of(Work.SEND, "another").hold([7_100_011]) == [7_100_011]
    lock.free(Work.SEND, "another", [7_100_011])
