"""A platform that failed four calls of five works again: what waits for its next try does not wait its five minutes."""

from __future__ import annotations

import datetime as dt
import time

import psycopg
import pytest
from django.utils import timezone

from conversations import recovery
from conversations.models import Channel, Conversation, Reply
from tests.desk.scenes import make_channel, make_lane
from tests.doubles import Double
from tests.races.replies import Scene
from tests.stack import Stack, wait_until

LATER = dt.timedelta(minutes=4)


def waiting(channel: Channel, attempts: int = 7, later: dt.timedelta = LATER) -> int:
    """A lane whose reply failed and waits, with another behind it."""
    lane = make_lane(replies="pending pending", channel=channel, send_due_at=timezone.now() + later)
    Reply.objects.filter(conversation=lane, sequence=1).update(
        attempts=attempts, not_before=timezone.now() + later, error="HTTP 503"
    )
    return lane.pk


def due() -> set[int]:
    return set(Conversation.objects.filter(send_due_at__lte=timezone.now()).values_list("id", flat=True))


def succeed(channel: Channel, times: int) -> None:
    for _ in range(times):
        recovery.succeeded(channel.pk)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No failure for 0.1 s is enough."""
    monkeypatch.setattr(recovery, "QUIET_SECONDS", 0.1)


def test_successes_in_a_row_after_a_failure_make_the_channels_heads_due(own_database: str, quick: None) -> None:
    channel, other = make_channel(), make_channel()
    tried, elsewhere = [waiting(channel) for _ in range(3)], waiting(other)
    recovery.failed(channel.pk)
    time.sleep(0.1)
    succeed(channel, recovery.SUCCESSES - 1)
    assert due() == set()
    succeed(channel, 1)
    assert due() == set(tried)
    heads = Reply.objects.filter(conversation__in=tried, sequence=1)
    assert not heads.filter(not_before__gt=timezone.now()).exists()
    assert set(heads.values_list("status", "attempts")) == {("pending", 7)}
    assert Reply.objects.get(conversation=elsewhere, sequence=1).not_before > timezone.now()


def test_a_failure_between_them_and_too_short_a_quiet_begin_anew(own_database: str, quick: None) -> None:
    channel = make_channel()
    tried = waiting(channel)
    recovery.failed(channel.pk)
    time.sleep(0.1)
    succeed(channel, recovery.SUCCESSES - 1)
    recovery.failed(channel.pk)
    succeed(channel, recovery.SUCCESSES + 1)
    assert due() == set(), "eight, but the last failure was a moment ago"
    time.sleep(0.1)
    succeed(channel, 1)
    assert due() == {tried}


def test_a_channel_that_did_not_fail_and_waits_that_are_no_retries_are_left_alone(
    own_database: str, quick: None
) -> None:
    channel, never_failed = make_channel(), make_channel()
    asked = waiting(channel, attempts=0)  # the platform said when
    waiting(never_failed)
    recovery.failed(channel.pk)
    time.sleep(0.1)
    for each in (channel, never_failed):
        succeed(each, 2 * recovery.SUCCESSES)
    assert due() == set()
    assert Reply.objects.get(conversation=asked, sequence=1).not_before > timezone.now()


def test_a_lane_that_is_being_sent_is_not_waited_for(own_database: str, quick: None) -> None:
    channel = make_channel()
    held, free = waiting(channel), waiting(channel)
    recovery.failed(channel.pk)
    time.sleep(0.1)
    with psycopg.connect(own_database) as sender:
        sender.execute("SELECT FROM conversation WHERE id = %s FOR NO KEY UPDATE", (held,))
        succeed(channel, recovery.SUCCESSES)
        assert due() == {free}


def test_many_are_due_in_parts_longest_wait_first(
    own_database: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LANES", 2)
    channel = make_channel()
    lanes = [waiting(channel, later=dt.timedelta(minutes=n)) for n in range(1, 6)]
    recovery.failed(channel.pk)
    time.sleep(0.1)
    for parts in (2, 4, 5):
        succeed(channel, recovery.SUCCESSES)
        assert due() == set(lanes[-parts:])
    assert channel.pk not in recovery._streaks, "all are due: there is nothing more to count"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_people_hear_from_a_platform_that_works_again_before_their_retry_would_have_come(double: Double) -> None:
    with Stack(roles="send,sweep") as stack:
        stack.wait_for_workers("send", "sweep")
        scene = Scene(stack, double)
        channel = scene.generic()
        stack.query("UPDATE channel SET active = false WHERE id = %s", channel.id)
        lane = scene.say(channel, "patient", "one", "two")
        later = "now() + interval '20 min'"
        head = f"UPDATE reply SET attempts = 7, not_before = {later} WHERE sequence = 1 AND conversation_id = %s"
        stack.query(head, lane)
        stack.query(f"UPDATE conversation SET send_due_at = {later} WHERE id = %s", lane)
        stack.query("UPDATE channel SET active = true WHERE id = %s", channel.id)
        double.script({"do": "503", "chat": "last"})
        scene.say(channel, "last", "x")
        wait_until(lambda: scene.calls("last") == ["x", "x"], 30, "it failed once, and worked")
        numbers = iter(range(1_000))

        def talk() -> bool:
            scene.say(channel, f"u{next(numbers)}", "hello")
            time.sleep(0.3)
            return scene.shown("patient") == ["one", "two"]

        wait_until(talk, 40, "it is sent, and what is behind it")
        assert scene.replies(lane, "status, attempts") == [("sent", 8), ("sent", 1)]
