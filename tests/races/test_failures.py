"""A failure has an owner: what a bot may do wrong, and who pays for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.races.lanes import BOTS, Lanes
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.xdist_group("handling"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    with Stack(roles="handle,sweep", env=BOTS) as stack:
        stack.wait_for_workers("handle", "sweep")
        yield Lanes(stack)


# ---------------------------------------------------------------- what a turn may say and remember


def test_a_turn_sees_the_person_the_history_and_its_own_state(lanes: Lanes) -> None:
    channel = lanes.channel()
    lane = lanes.say(channel, "u", "hello", "describe", "recall 4", "remember 65000")
    lanes.settled(lane)
    assert lanes.replies(lane)[:2] == ["1: hello", " u message web"]
    assert lanes.replies(lane)[2] == "user=hello | user=describe | bot=1: hello | bot= u message web"
    assert lanes.stack.value("SELECT state -> 'seen' FROM conversation_state WHERE conversation_id = %s", lane) == [
        1,
        2,
        3,
        4,
    ]
    assert lanes.turns(lane, "log")[1] == ["seen u"]


def test_choices_and_media_are_replies_in_order(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "offer")
    lanes.settled(lane)
    picture, question = lanes.replies(lane, "body")
    assert picture["media"]["url"].endswith("a.png")
    assert [choice["id"] for choice in question["choices"]] == ["a", "b", "Plum"]
    assert question["media"] == {"kind": "file", "url": "https://example.org/b"}


@pytest.mark.parametrize(
    "text",
    ["nul", "surrogate", "object", "remember 65600", "talk 101", "raise", "stray", "exit"],
    ids=lambda text: text.replace(" ", "-"),
)
def test_a_turn_that_cannot_be_written_is_a_failed_attempt_of_its_message_only(lanes: Lanes, text: str) -> None:
    channel = lanes.channel()
    bad, good = lanes.say(channel, "bad", text), lanes.say(channel, "good", "hello")
    lanes.settled(good)
    wait_until(lambda: lanes.turns(bad)[:1] == ["failed"], 10, "the failed attempt")
    assert lanes.messages(bad) == ["pending"]
    assert lanes.replies(bad) == []
    assert lanes.replies(good) == ["1: hello"]
