"""Handling under fire: workers that are stopped, killed and robbed of their locks at named points."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
import redis

from tests.kit.lanes import BOTS, Lanes, expect_constant
from tests.kit.replies import desk
from tests.kit.shared import shared
from tests.kit.stack import every, state, wait_until

pytestmark = [pytest.mark.xdist_group("handling"), pytest.mark.timeout(400)]


lanes = shared(Lanes, roles="sweep", env=BOTS)  # no worker but those that a test starts


UNLOCK = "for _, k in ipairs(redis.call('KEYS', '{lanes}:handling:*')) do redis.call('DEL', k) end"


@contextlib.contextmanager
def as_redis(lanes: Lanes) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(lanes.stack.servers.redis_url, decode_responses=True) as client:
        yield client


def owner(lanes: Lanes, lane: int) -> str | None:
    with as_redis(lanes) as client:
        return client.hget(f"{{lanes}}:handling:{lane}", "o")  # type: ignore[return-value]


@pytest.mark.slow
def test_a_worker_that_slept_beyond_its_lock_has_no_second_effect_and_unlocks_nothing(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "one", "wait 9", "three", woken=False)
    with lanes.workers("T4=stop@1"):
        lanes.wake(lane)
        sleeper = lanes.stopped()
        with lanes.workers(""):
            lanes.begun(lane, 3, seconds=30)  # 1: the sleeper; 2: the first message again; 3: the second
            holder = owner(lanes, lane)
            os.kill(sleeper, signal.SIGCONT)
            expect_constant(lambda: owner(lanes, lane), 3, holder)
            lanes.settled(lane)
    assert [line.sequence for line in lanes.done(lane, "begun")] == [1, 1, 2, 3]
    assert lanes.turns(lane) == ["committed"] * 3
    lanes.assert_in_order(lane)


@pytest.mark.slow
def test_two_workers_without_any_lock_handle_every_message_once(lanes: Lanes) -> None:
    channel = lanes.channel()
    texts = [f"message {n}" for n in range(1, 13)]
    with lanes.workers("", ""), as_redis(lanes) as client:
        unlock = client.register_script(UNLOCK)
        with every(0.002, unlock):
            filled = [lanes.say(channel, f"u{n}", *texts, woken=False) for n in range(12)]
            with every(0.02, lambda: lanes.wake(*filled)):
                lanes.settled(*filled)
    lanes.assert_in_order(*filled)
    assert len({line.pid for line in lanes.done() if line.lane in filled}) == 2, "only one worker took part"


def test_a_worker_whose_clock_is_ahead_handles_everything(lanes: Lanes) -> None:
    with lanes.workers("", EXTRA_APPS="tests.bots_app,tests.chaos.apps.ChaosConfig", CHAOS_CLOCK="1200"):
        filled = [lanes.say(lanes.channel(), f"u{n}", "one", "two") for n in range(5)]
        lanes.settled(*filled)
    assert "1200 handle " in (lanes.stack.folder / "clocks.txt").read_text()
    lanes.assert_in_order(*filled)


@pytest.mark.slow
def test_a_take_over_in_the_middle_of_a_turn_voids_it(lanes: Lanes) -> None:
    with lanes.workers(""):
        lane = lanes.say(lanes.channel(), "u", "one", "wait 60", "three")
        lanes.begun(lane, 2)
        desk(lanes, f"desk.take_over(seen({lane}), anna)")
        assert not [line for line in lanes.done(lane, "ended") if line.sequence == 2], "the take-over came too late"
        with lanes.released():
            wait_until(lambda: len(lanes.done(lane, "ended")) == 2, 25, "the turn's end")
        expect_constant(lambda: lanes.messages(lane), 1, ["handled", "pending", "pending"])
    assert lanes.replies(lane, "body ->> 'text', status") == [("1: one", "cancelled")]
    assert lanes.lane(lane, "mode, epoch, next_sequence, due_at, cancelled_through") == ("human", 1, 2, None, 1)


@pytest.mark.slow
def test_killed_anywhere_every_message_is_handled_once_and_in_order(lanes: Lanes) -> None:
    """T2: lanes held; T4: the bot has run; T5: before the transaction; T6: after COMMIT; T7: before the release."""
    points = ["T2", "T4", "T5", "T6", "T7"]
    channel = lanes.channel()
    with lanes.workers(*[f"{point}=kill@2" for point in points]):
        filled = [lanes.say(channel, f"k{n}", "a", "b", "c", "d") for n in range(20)]
        killed = lambda: lanes.stack.logs().count("killed by SIGKILL")  # noqa: E731
        wait_until(lambda: killed() >= len(points), 20, "deaths")
    with lanes.workers(""):
        lanes.settled(*filled, seconds=40)
    lanes.assert_in_order(*filled)
    assert (lanes.stack.value("SELECT count(*) FROM turn WHERE outcome <> 'committed' AND conversation_id = ANY (%s)",
                              filled) == 0)  # fmt: skip


@pytest.mark.slow
def test_sigterm_to_all_commits_what_ends_in_time_and_cuts_the_rest_without_blame(lanes: Lanes) -> None:
    channel = lanes.channel()
    with lanes.workers("") as (process,):
        short = [lanes.say(channel, f"s{n}", "wait 4", "after") for n in range(3)]
        long = lanes.say(channel, "long", "wait 100")
        for lane in (*short, long):
            lanes.begun(lane)
        everything = children(process.pid)
        for pid in everything:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not any(state(pid) not in ("", "Z") for pid in everything), 25, "all processes gone")
        assert process.wait() == 0
    assert [lanes.messages(lane)[0] for lane in short] == ["handled"] * 3
    assert [len(lanes.done(lane, "begun")) for lane in short] == [1] * 3
    assert lanes.turns(long) == []
    assert lanes.lane(long, "attempts, suspect, not_before") == (0, False, None)
    assert lanes.stack.value("SELECT count(*) FROM worker WHERE kind = 'handle' AND NOT dead") == 0
    lanes.stack.query("UPDATE conversation SET paused_at = now(), due_at = NULL WHERE id = %s", long)


def test_a_turn_that_never_ends_is_an_attempt_at_once_and_its_process_is_replaced(lanes: Lanes) -> None:
    channel = lanes.channel()
    with lanes.workers("", TURN_SECONDS="3"):
        endless = lanes.say(channel, "endless", "wait 100")
        before = lanes.begun(endless).pid
        other = lanes.say(channel, "other", "wait 2.5")
        wait_until(lambda: lanes.turns(endless, "error_type") == ["TurnTooLong"], 10, "the turn given up")
        lanes.stack.query("UPDATE conversation SET paused_at = now(), due_at = NULL WHERE id = %s", endless)
        lanes.settled(other)
        assert lanes.done(other, "ended")[0].pid == before, "it let the others finish"
        wait_until(lambda: bool(lanes.stack.pids("handle")) and before not in lanes.stack.pids("handle"), 20, "another")
        later = lanes.say(channel, "later", "hello")
        lanes.settled(later)
    assert lanes.lane(endless, "attempts, suspect") == (1, True), "its next attempt runs in a process of its own"
    assert lanes.stack.value("SELECT count(*) FROM worker WHERE dead AND pid = %s", before) == 0
    assert lanes.replies(endless) == []


def children(pid: int) -> list[int]:
    """A process and all that it started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        below = [int(child) for child in file.read().split()]
    return [pid, *(each for child in below for each in children(child))]


@pytest.mark.slow
def test_a_hundred_sleeping_turns_do_not_stop_the_others(lanes: Lanes) -> None:
    plain, loop = lanes.channel(), lanes.channel("obedient_async")
    with lanes.workers("", TURN_SECONDS="150"):
        asleep = [lanes.say(plain, f"z{n}", "wait 140", woken=False) for n in range(103)]
        asleep += [lanes.say(loop, f"z{n}", "wait 140", woken=False) for n in range(103)]
        lanes.wake(*asleep)
        for lane in asleep:
            lanes.begun(lane)
        awake = [lanes.say(channel, f"a{n}", "hello", "you") for n in range(10) for channel in (plain, loop)]
        lanes.settled(*awake, seconds=14)
        assert not any(line.word == "ended" and line.lane in asleep for line in lanes.done())
        with lanes.released():
            lanes.settled(*asleep)
        assert lanes.stack.value("SELECT count(*) FROM reply WHERE conversation_id = ANY (%s)", asleep) == 206


def test_a_worker_whose_connections_are_cut_takes_wakes_again(lanes: Lanes) -> None:
    """All of them, the broker's too, while it reads them: it must not wait for ever on one of them."""
    channel = lanes.channel()
    with lanes.workers("T1=drop@2!"):
        for n in range(8):
            lanes.settled(lanes.say(channel, f"cut {n}", "hello"), seconds=20)
