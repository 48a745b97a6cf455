"""A platform that failed four calls of five works again: what waits for its next try does not wait its five minutes."""

from __future__ import annotations

import datetime as dt
import time

import psycopg
import pytest
from django.utils import timezone

from conversations.contracts import Failed, Sent
from conversations.delivering import early_retry
from conversations.models import Channel, Conversation, Reply
from tests.kit.desk_scenes import make_channel, make_lane
from tests.kit.doubles import Double
from tests.kit.replies import Scene
from tests.kit.shared import working
from tests.kit.stack import wait_until

LATER = dt.timedelta(minutes=4)
QUIET = 0.3


def waiting(channel: Channel, attempts: int = 7, later: dt.timedelta = LATER, tried: float = 99.0) -> int:
    """A lane whose reply failed ``tried`` seconds ago and waits, with another behind it."""
    now = timezone.now()
    lane = make_lane(replies="pending pending", channel=channel, send_due_at=now + later)
    head = Reply.objects.filter(conversation=lane, sequence=1)
    head.update(attempts=attempts, not_before=now + later, intent_at=now - dt.timedelta(seconds=tried))
    return lane.pk


def due() -> set[int]:
    return set(Conversation.objects.filter(send_due_at__lte=timezone.now()).values_list("id", flat=True))


def fail(channel: Channel) -> None:
    early_retry.record_outcome(channel.pk, Failed(reason="HTTP 503"))


def succeed(channel: Channel, times: int = early_retry.SUCCESSES) -> None:
    for _ in range(times):
        early_retry.record_outcome(channel.pk, Sent())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No failure for a moment is enough."""
    monkeypatch.setattr(early_retry, "QUIET_SECONDS", QUIET)
    monkeypatch.setattr(early_retry, "BATCH_SECONDS", 0.0)


def test_successes_in_a_row_after_a_failure_make_the_channels_heads_due(own_database: str, quick: None) -> None:
    channel, other = make_channel(), make_channel()
    tried, elsewhere = [waiting(channel) for _ in range(3)], waiting(other)
    fail(channel)
    time.sleep(QUIET)
    succeed(channel, early_retry.SUCCESSES - 1)
    assert due() == set()
    succeed(channel, 1)
    assert due() == set(tried)
    heads = Reply.objects.filter(conversation__in=tried, sequence=1)
    assert not heads.filter(not_before__gt=timezone.now()).exists()
    assert set(heads.values_list("status", "attempts")) == {("pending", 7)}
    assert Reply.objects.get(conversation=elsewhere, sequence=1).not_before > timezone.now()


def test_a_failure_or_too_short_a_quiet_time_starts_the_streak_again(own_database: str) -> None:
    channel = make_channel()
    waiting(channel)
    fail(channel)
    succeed(channel, 3 * early_retry.SUCCESSES)
    assert due() == set(), "the last failure was a moment ago"


def test_where_it_fails_again_soon_the_quiet_is_twice_as_long(own_database: str, quick: None) -> None:
    channel = make_channel()
    fail(channel)
    for _ in range(3):
        time.sleep(quiet_of(channel))
        succeed(channel)
        before = quiet_of(channel)
        fail(channel)
        fail(channel)
        assert quiet_of(channel) == 2 * before
    early_retry._streaks()[channel.pk].failed_at -= early_retry.LONGEST_QUIET_SECONDS
    fail(channel)
    assert quiet_of(channel) == QUIET, "it had been well for a minute"


def quiet_of(channel: Channel) -> float:
    return early_retry._streaks()[channel.pk].quiet


def test_who_did_not_fail_and_waits_that_are_no_retries_are_left_alone(own_database: str, quick: None) -> None:
    channel, never_failed = make_channel(), make_channel()
    waiting(never_failed)
    waiting(channel, attempts=0)  # the platform said when
    waiting(channel, tried=-QUIET)  # another sender tried it just now
    fail(channel)
    time.sleep(QUIET)
    for each in (channel, never_failed):
        succeed(each)
    assert due() == set()
    assert not Reply.objects.filter(sequence=1, not_before__lte=timezone.now()).exists()


def test_a_lane_that_somebody_holds_is_not_waited_for(own_database: str, quick: None) -> None:
    channel = make_channel()
    held, free = waiting(channel), waiting(channel)
    fail(channel)
    time.sleep(QUIET)
    with psycopg.connect(own_database) as sender:
        sender.execute("SELECT FROM conversation WHERE id = %s FOR NO KEY UPDATE", (held,))
        succeed(channel)
        assert due() == {free}


def test_many_are_due_in_parts_longest_first(own_database: str, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane is looked at once: what waits for other reasons stands before nobody."""
    monkeypatch.setattr(early_retry, "LANES", 2)
    channel = make_channel()
    lanes = [waiting(channel, later=dt.timedelta(minutes=n), attempts=int(n != 4)) for n in range(1, 6)]
    fail(channel)
    time.sleep(QUIET)
    for last in ([4], [4, 2, 1], [4, 2, 1, 0]):
        succeed(channel, 1 if due() else early_retry.SUCCESSES)
        assert due() == {lanes[place] for place in last}
    assert early_retry._streaks()[channel.pk].nothing_waits, "all were looked at: there is nothing more to count"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_people_hear_from_a_platform_that_works_again_before_their_retry_would_have_come(double: Double) -> None:
    with working(roles="send,sweep") as stack:
        scene = Scene(stack, double)
        channel = scene.generic()
        stack.query("UPDATE channel SET active = false WHERE id = %s", channel.id)
        lane = scene.say(channel, "patient", "one", "two")
        later = "now() + interval '20 min'"
        stack.query(f"""UPDATE reply SET attempts = 7, intent_at = now() - interval '1 min', not_before = {later}
                 WHERE sequence = 1 AND conversation_id = %s""", lane)  # fmt: skip
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
