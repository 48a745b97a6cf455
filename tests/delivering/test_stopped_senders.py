"""Senders held open in the middle of a send, on a stack of their own: nobody else's replies lie about there."""

from __future__ import annotations

import time

import pytest

from tests.kit.lanes import BOTS, expect_constant
from tests.kit.replies import Scene, decide, desk, without_repeats
from tests.kit.shared import shared
from tests.kit.stack import wait_until
from tests.kit.stopped_processes import asleep, go_on, process

pytestmark = [pytest.mark.xdist_group("stopped-senders"), pytest.mark.timeout(400)]


stack = shared(roles="sweep", env=BOTS)  # no sender but those that a test starts


@pytest.mark.slow
def test_a_take_over_between_intent_and_call_lets_no_call_begin(scene: Scene) -> None:
    channel = scene.telegram()
    with process(scene.stack, "send", "D2=stop@1") as first:
        lane = scene.say(channel, 401, "one", "two")
        sleeper = asleep(first)
        assert scene.replies(lane) == ["sending", "pending"]
        desk(scene, f"desk.answer(seen({lane}), anna, 'I am here', taking_over=True)")
        time.sleep(2)  # a call that is this late does not begin
        go_on(sleeper)
        scene.settled(channel)
    assert scene.calls(401) == ["I am here"]
    assert scene.replies(lane) == ["cancelled", "cancelled", "sent"]


@pytest.mark.slow
def test_a_result_that_comes_after_staff_sent_again_changes_nothing(scene: Scene) -> None:
    channel = scene.telegram(unknown_policy="ask")
    with process(scene.stack, "send", "D3=stop@1") as first:
        lane = scene.say(channel, 402, "one", "two")
        sleeper = asleep(first)
        wait_until(lambda: scene.replies(lane) == ["unknown", "pending"], 60, "its sender is taken for dead")
        with process(scene.stack, "send", ""):
            decide(scene, lane, sent=False)
            scene.settled(channel)
            before = scene.replies(lane, "status, attempts, platform_id")
            go_on(sleeper)
            expect_constant(lambda: scene.replies(lane, "status, attempts, platform_id"), 3, before)
    assert scene.shown(402) == ["one", "one", "two"]
    assert without_repeats(scene.shown(402)) == ["one", "two"]
