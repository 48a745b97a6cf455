"""Races held open: a process is stopped in the middle of something, something else happens, then it goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.doubles import Double
from tests.kit.lanes import BOTS, Lanes, expect_constant
from tests.kit.platforms import GENERIC_SECRET, generic_text
from tests.kit.replies import Scene, desk
from tests.kit.shared import shared
from tests.kit.stack import Channel, Stack, every, free_port, wait_until
from tests.kit.stopped_processes import asleep, go_on, process

pytestmark = [pytest.mark.xdist_group("stopped"), pytest.mark.timeout(400)]


stack = shared(roles="sweep", env=BOTS)  # no worker but those that a test starts


@pytest.fixture
def lanes(stack: Stack) -> Lanes:
    return Lanes(stack)


@pytest.fixture
def scene(stack: Stack, double: Double) -> Scene:
    double.reset()
    return Scene(stack, double)


def ordered(stack: Stack) -> Channel:
    """A channel whose platform numbers its messages; the first 2 s decide what the base is."""
    return stack.add_channel("generic", bot="obedient", secret=GENERIC_SECRET, outbound_url="http://127.0.0.1:9/")


def post(stack: Stack, channel: Channel, number: int, port: int = 0) -> int:
    body, headers = generic_text(channel, "ann", f"m{number}", f"number-{number}", seq=number)
    url = f"http://127.0.0.1:{port or stack.ports[0]}{channel.webhook_path}"
    with contextlib.suppress(Exception):
        return stack.http.request("POST", url, body=body, headers=headers).status
    return 0


def lane_of(stack: Stack, channel: Channel) -> int:
    return int(stack.value("SELECT id FROM conversation WHERE channel_id = %s", channel.id))


# ---------------------------------------------------------------- numbers


@pytest.mark.slow
def test_what_waits_is_released_once_also_by_two_who_look_at_the_same_time(lanes: Lanes) -> None:
    stack, channel = lanes.stack, ordered(lanes.stack)
    with process(stack, "handle", "T3=stop@2") as first:  # 1: it waits; 2: its time is over
        assert [post(stack, channel, number) for number in (12, 11)] == [200, 200]
        sleeper = asleep(first)
        lane = lane_of(stack, channel)
        assert lanes.messages(lane) == ["waiting", "waiting"]
        with process(stack, "handle", ""):
            lanes.settled(lane)
            assert post(stack, channel, 13) == 200
            lanes.settled(lane)
            go_on(sleeper)
            expect_constant(lambda: lanes.messages(lane, "sequence, text, status"), 2, [
                (1, "number-11", "handled"), (2, "number-12", "handled"), (3, "number-13", "handled")])  # fmt: skip
    lanes.assert_in_order(lane)


def test_a_latecomer_that_froze_while_it_was_stored_holds_no_release_up_and_comes_last(lanes: Lanes) -> None:
    stack, channel, port = lanes.stack, ordered(lanes.stack), free_port()
    web = stack._begin(stack.web_process("web-frozen", port, {"FAILPOINTS": "W2=stop@1"}))
    wait_until(lambda: stack.healthy(port), 40, "the web process answers")
    with process(stack, "handle", ""):
        assert [post(stack, channel, number) for number in (13, 12)] == [200, 200]
        threading.Thread(target=post, args=(stack, channel, 11, port), daemon=True).start()
        sleeper = asleep(web)
        lane = lane_of(stack, channel)
        lanes.settled(lane)
        assert post(stack, channel, 11) == 200  # the platform comes again
        go_on(sleeper)
        assert post(stack, channel, 14) == 200
        lanes.settled(lane)
        stored = [("number-12", False), ("number-13", False), ("number-11", True), ("number-14", False)]
        expect_constant(lambda: lanes.messages(lane, "text, late"), 2, stored)
    web.end()
    lanes.assert_in_order(lane)


@pytest.mark.slow
def test_a_timer_that_fires_while_a_turn_is_written_is_handled_once_after_it(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "one", "two", woken=False)
    with process(lanes.stack, "handle", "T5=stop@1") as first:
        lanes.wake(lane)
        sleeper = asleep(first)  # in its transaction, the lane locked
        lanes.stack.query("INSERT INTO timer (conversation_id, name, due_at) VALUES (%s, 'reminder', now())", lane)
        wait_until(lambda: len(lanes.messages(lane)) == 3, 20, "the timer's message")
        with process(lanes.stack, "handle", ""):
            lanes.settled(lane)
            go_on(sleeper)
            expect_constant(lambda: lanes.messages(lane), 2, ["handled"] * 3)
    assert lanes.messages(lane, "kind") == ["message", "message", "timer"]
    assert lanes.turns(lane) == ["committed"] * 3
    lanes.assert_in_order(lane)


# ---------------------------------------------------------------- people against turns


def during_a_turn(lanes: Lanes, lane: int, act: Callable[[], Any]) -> None:
    """The bot has run; before its result is written, ``act``."""
    with process(lanes.stack, "handle", "T4=stop@1") as first:
        lanes.wake(lane)
        sleeper = asleep(first)
        act()
        go_on(sleeper)
        lanes.settled(lane)


def test_a_turn_from_before_a_take_over_is_void_also_after_the_hand_back(lanes: Lanes, scene: Scene) -> None:
    lane = lanes.say(lanes.channel(), "u", "one", "two", woken=False)
    hand_back = f"desk.take_over(seen({lane}), anna); desk.hand_back(seen({lane}), anna, skip_answered=False)"
    during_a_turn(lanes, lane, lambda: desk(scene, hand_back))
    assert [line.sequence for line in lanes.done(lane, "ended")] == [1, 1, 2]
    assert lanes.turns(lane, "epoch") == [2, 2]
    lanes.assert_in_order(lane)


def test_a_turn_of_a_head_that_staff_retried_meanwhile_is_void(lanes: Lanes, scene: Scene) -> None:
    lane = lanes.say(lanes.channel(), "u", "one", "two", woken=False)
    during_a_turn(lanes, lane, lambda: desk(scene, f"desk.retry(seen({lane}), anna)"))
    assert [line.sequence for line in lanes.done(lane, "ended")] == [1, 1, 2]
    lanes.assert_in_order(lane)


def test_what_is_unparked_during_a_turn_comes_after_it_and_the_turn_counts(lanes: Lanes, scene: Scene) -> None:
    lane = lanes.say(lanes.channel(), "u", "one", "two", woken=False)
    desk(scene, f"desk.park(seen({lane}), anna, 'later')")
    unpark = f"""
from conversations.models import Message
desk.unpark(seen({lane}), anna, Message.objects.get(conversation={lane}, sequence=1))"""
    during_a_turn(lanes, lane, lambda: desk(scene, unpark))
    assert [line.sequence for line in lanes.done(lane, "ended")] == [2, 3]
    assert lanes.messages(lane, "text, status") == [("one", "skipped"), ("two", "handled"), ("one", "handled")]
    assert lanes.replies(lane) == ["2: two", "3: one"]


@pytest.mark.slow
def test_a_turn_whose_lock_ran_out_because_nobody_renewed_it_counts_once(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "wait 55", "two", woken=False)
    with process(lanes.stack, "handle", "R1=sleep:120@1"):
        lanes.wake(lane)
        lanes.begun(lane)
        with process(lanes.stack, "handle", ""), every(0.5, lambda: lanes.wake(lane)):
            lanes.begun(lane, 2, seconds=15)  # by the other one: the lock is gone, the turn still runs
            with lanes.released():
                lanes.settled(lane, seconds=40)
                wait_until(lambda: len(lanes.done(lane, "ended")) >= 3, 20, "all turns end")
    begun = lanes.done(lane, "begun")
    assert len({line.pid for line in begun if line.sequence == 1}) == 2
    assert lanes.turns(lane) == ["committed"] * 2
    lanes.assert_in_order(lane)


# ---------------------------------------------------------------- sweepers


@pytest.mark.slow
@pytest.mark.parametrize("point", ["S1", "S2"])
def test_what_a_stopped_sweeper_claimed_is_swept_again_and_its_late_wakes_do_no_harm(lanes: Lanes, point: str) -> None:
    stack = lanes.stack
    channels = [lanes.channel(tenant=lanes.tenant()) for _ in range(3)]
    wait_until(lambda: len(stack.pids("sweep")) == 1, 30, "only the one that stays")
    (healthy,) = stack.pids("sweep")
    os.kill(healthy, signal.SIGSTOP)
    try:
        with process(stack, "sweep", f"{point}=stop@1") as first:
            filled = [lanes.say(channel, "u", "one", "two", "three", woken=False) for channel in channels]
            sleeper = asleep(first)
            go_on(healthy)
            with process(stack, "handle", ""):
                lanes.settled(*filled, seconds=40)
                go_on(sleeper)
                expect_constant(lambda: [len(lanes.done(lane, "begun")) for lane in filled], 4, [3, 3, 3])
    finally:
        go_on(healthy)
    lanes.assert_in_order(*filled)
