"""What a lane does next, as a table: no database, no clock."""

from __future__ import annotations

import collections
import uuid
from typing import Any

import msgspec
import pytest

from conversations.contracts import ChannelConfig, Failed, Rejected, Scope, Sent, Unknown
from conversations.delivering import results
from conversations.delivering.decision import STAY_SECONDS, Decision, Do, Facts, Refuse, Wait, decide
from conversations.delivering.lane import Lane
from conversations.delivering.results import Next, Step

START, RELEASE, REQUEUE, WRITE, IN_LINE = Do.START, Do.RELEASE, Do.REQUEUE, Do.WRITE_RESULT, Do.WAIT_FOR_SLOT
CHANNEL = ChannelConfig(
    id=1, tenant_id=1, platform="generic", bot="echo", public_id="p", active=True, options={}, credentials={},
    api_base="",
)  # fmt: skip
OFF = msgspec.structs.replace(CHANNEL, active=False)
PENDING = Next(
    id=1, channel_id=1, chat="ada", user="ada", is_group=False, address={}, refusal=None, cancelled_through=0,
    sent_ago=None, reply_id=70, sequence=7, author="bot", status="pending", attempts=0,
    intent_number=0, wait=None, expired=False, key=uuid.uuid4(), body={"text": "hi"}, claimed_by=None, age=0.0,
    answers=None, identity=None,
)  # fmt: skip


def ended(outcome: Any) -> Step:
    return results.judge(PENDING, uuid.uuid4(), CHANNEL, outcome, False)


SENT, FAILED = ended(Sent()), ended(Failed(reason="502"))
BLOCKED = ended(Rejected(reason="blocked", scope=Scope.CONVERSATION))


@pytest.mark.parametrize(("reply", "facts", "expected"), [
    ({}, {}, START),
    # another's, or for staff to decide
    ({"status": "sending"}, {}, RELEASE),
    ({"status": "unknown"}, {}, RELEASE),
    # a status may still name it
    ({"status": "unknown", "wait": 0.5}, {}, RELEASE),
    ({"status": "unknown", "wait": -0.5}, {"paused": True}, Do.END_WAIT),
    ({"status": "unknown", "wait": -0.5}, {"stopping": True}, RELEASE),
    ({"status": "sending"}, {"lost": True}, REQUEUE),
    ({"status": "sending"}, {"lost": True, "stopping": True, "paused": True, "slot": False}, REQUEUE),
    # must not be sent
    ({"cancelled_through": 7}, {}, Refuse("cancelled", "a person took over before it started")),
    ({"cancelled_through": 7, "author": "system"}, {}, START),
    ({"cancelled_through": 6}, {}, START),
    ({"expired": True}, {"paused": True}, Refuse("expired", "its time passed before it could be sent")),
    ({"refusal": "opted_out"}, {"paused": True}, Refuse("parked", "the person wants no more messages from us")),
    # sending is stopped
    ({}, {"stopping": True}, RELEASE),
    ({}, {"held": True}, RELEASE),
    ({}, {"paused": True}, RELEASE),
    # not yet
    ({"wait": -1.0}, {}, START),
    ({"wait": 0.5}, {}, Wait(0.5)),
    ({"wait": STAY_SECONDS + 0.1}, {}, RELEASE),
    ({"wait": 0.5}, {"slot": False}, Wait(0.5)),
    ({"phone_wait": 0.5}, {}, RELEASE),
    ({"phone_wait": -0.5}, {}, START),
    ({}, {"slot": False}, IN_LINE),
])  # fmt: skip
def test_the_next_reply(reply: dict[str, Any], facts: dict[str, Any], expected: Decision) -> None:
    lane = lane_with(reply)
    assert decide(lane, Facts(**facts)) == expected
    lane.result = SENT
    goes_on = expected is START
    assert decide(lane, Facts(**facts)) is (START if goes_on else WRITE), "its result travels with an intent, or first"


@pytest.mark.parametrize("result", [FAILED, BLOCKED, ended(Unknown(reason="reset"))])
def test_a_result_that_decides_about_the_next_reply_is_written_first(result: Step) -> None:
    lane = lane_with({})
    lane.result = result
    assert decide(lane, Facts()) is WRITE


@pytest.mark.parametrize(("options", "media", "platform", "expected"), [
    ({}, True, "whatsapp", results.PHONE_SECONDS),
    ({}, False, "whatsapp", None),
    ({"wait_for": "sent"}, True, "whatsapp", None),
    ({"wait_for": "delivered"}, False, "whatsapp", results.PHONE_SECONDS),
    ({"wait_for": "", "wait_for_s": ""}, True, "whatsapp", results.PHONE_SECONDS),
    ({"wait_for_s": 9}, True, "whatsapp", 9.0),
    ({"wait_for_s": 0}, True, "whatsapp", None),
    ({"wait_for": "delivered"}, True, "telegram", None),  # reports no delivery
])  # fmt: skip
def test_a_result_behind_which_the_next_reply_waits_is_written_first(
    options: dict[str, Any], media: bool, platform: str, expected: float | None
) -> None:
    reply = msgspec.structs.replace(PENDING, body={"text": "hi", **({"media": {"kind": "image"}} if media else {})})
    channel = msgspec.structs.replace(CHANNEL, platform=platform, options=options)
    lane = lane_with({}, channel)
    lane.result = results.judge(reply, uuid.uuid4(), channel, Sent(), False)
    assert lane.result.phone_wait == expected
    assert decide(lane, Facts()) is (START if expected is None else WRITE)


def test_a_template_with_a_picture_counts_as_media() -> None:
    channel = msgspec.structs.replace(CHANNEL, platform="whatsapp")
    for media, expected in (({"media": {"kind": "image"}}, results.PHONE_SECONDS), ({}, None)):
        body = {"text": "hi", "template": {"name": "t", "language": "de", **media}}
        reply = msgspec.structs.replace(PENDING, body=body)
        assert results.judge(reply, uuid.uuid4(), channel, Sent(), False).phone_wait == expected


def test_a_probe_is_tried_while_the_channel_is_paused_and_before_its_time_and_not_where_it_is_off() -> None:
    lane = lane_with({"wait": 60.0})
    lane.probe = True
    assert decide(lane, Facts(paused=True)) is START
    assert decide(lane, Facts(paused=True, stopping=True)) is RELEASE
    lane.channel = OFF
    assert decide(lane, Facts()) is RELEASE


def test_a_lane_with_nothing_to_send_or_without_a_channel_is_released_and_its_result_written() -> None:
    for lane in (lane_with({}, channel=None), Lane(1)):
        assert decide(lane, Facts()) is RELEASE
        lane.result = SENT
        assert decide(lane, Facts()) is WRITE


def lane_with(reply: dict[str, Any], channel: ChannelConfig | None = CHANNEL) -> Lane:
    return Lane(1, channel=channel, replies=collections.deque([msgspec.structs.replace(PENDING, **reply)]))
