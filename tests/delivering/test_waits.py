"""Waits for statuses, in rows: of a reply of unknown outcome, and of the one behind a picture."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from django.utils import timezone

from conversations import registry, runtime
from conversations.contracts import ChannelConfig, Deferred, Failed, Outcome, Sent, StatusUpdate, Unknown
from conversations.delivering import results
from conversations.delivering.results import Next, Step
from conversations.delivering.send_stream import SENDS
from conversations.desk import actions
from conversations.models import Conversation, Reply
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import LANE_LOCKED, as_json
from conversations.reports.statuses import STATUSES
from conversations.sweeping import dead_workers
from tests.kit.desk_scenes import make_channel, make_lane, make_staff, seen

CLAIM = uuid.uuid4()
LOST = Unknown(reason="reset")
PICTURE = {"text": "", "media": {"kind": "image", "url": "https://shop.example/p.jpg"}}


class Lane:
    """A person's lane on WhatsApp with two replies, the first a picture, and the connection of a sender."""

    def __init__(self, connection: psycopg.Connection[Any], **options: Any) -> None:
        self.connection = connection
        self.row = make_lane("handled", "pending pending", channel=make_channel(platform="whatsapp", options=options))
        Reply.objects.filter(conversation=self.row, sequence=1).update(body=PICTURE)
        channel = registry.channel(self.row.channel_id)
        assert channel is not None
        self.channel: ChannelConfig = channel

    def look(self, sequence: int) -> Next:
        found = [Next(*row) for row in runtime.read(sql("fetch_replies"), {"ids": [self.row.pk]})]
        return next(reply for reply in found if reply.sequence == sequence)

    def write(self, step: Step) -> results.Written:
        (written,) = SENDS.write(self.connection, [step])
        assert isinstance(written, results.Written)
        return written

    def intend(self, reply: Next, step: Step | None = None) -> bool:
        """Return whether the intent was written, alone or with a result."""
        step = step or Step(id=reply.id, channel_id=reply.channel_id)
        step.intent_claim, step.intent_id = str(CLAIM), reply.reply_id
        step.intent_sequence, step.intent_number = reply.sequence, reply.intent_number
        step.phone_wait = results.phone_wait(reply, self.channel)
        return self.write(step).intent

    def send(self, sequence: int, outcome: Outcome, took: float = 0.0) -> Step:
        """Begin a reply and return the result that its call comes to."""
        reply = self.look(sequence)
        assert self.intend(reply)
        return results.judge(reply, CLAIM, self.channel, outcome, False, took)

    def hear(self, word: str, platform_id: str = "w1", key: Any = "") -> Any:
        update = StatusUpdate(platform_id=platform_id, status=word, key=str(key))
        (written,) = STATUSES.write(self.connection, [(self.channel, update)])
        return written

    def reply(self, sequence: int = 1) -> Reply:
        return Reply.objects.get(conversation=self.row, sequence=sequence)

    def due(self) -> dt.datetime | None:
        return Conversation.objects.get(pk=self.row.pk).send_due_at

    def waits_until(self) -> dt.datetime | None:
        return Conversation.objects.get(pk=self.row.pk).phone_until


@pytest.fixture
def sender(own_database: str) -> Iterator[psycopg.Connection[Any]]:
    with database.connect("send") as connection:
        yield connection


# ---------------------------------------------------------------- of unknown outcome


@pytest.mark.parametrize("how", ["lost", "late", "dead"])
def test_a_reply_of_unknown_outcome_waits_in_its_row_for_a_status(sender: psycopg.Connection[Any], how: str) -> None:
    lane = Lane(sender)
    step = lane.send(1, LOST, took=18.0 if how == "late" else 0.0)
    if how == "dead":
        dead_workers.CLAIMED.write(sender, [CLAIM])
    else:
        lane.write(step)
    reply = lane.reply()
    assert reply.not_before is not None
    assert reply.intent_at is not None
    waits = (reply.not_before - reply.intent_at).total_seconds()
    assert waits == pytest.approx(2.0 if how == "late" else results.STATUS_SECONDS, abs=1.5)
    assert (reply.status, reply.attempts, lane.due()) == ("unknown", 1, reply.not_before)
    assert not lane.intend(lane.look(2)), "the next reply overtakes it"
    assert lane.hear("delivered", key=reply.key) == ("joined", lane.row.pk)
    assert (lane.reply().status, lane.reply().delivered) == ("sent", "delivered")
    assert lane.intend(lane.look(2))


@pytest.mark.parametrize(("options", "told", "attempts", "becomes"), [
    ({}, "", 1, "pending"),
    ({}, "", results.ATTEMPTS, "parked"),
    ({"unknown_policy": "ask"}, "", 1, "unknown"),
    ({"unknown_policy": "ask"}, "delivered", 1, "sent"),  # a status that was kept before its reply was known by it
    ({}, "failed", 1, "failed"),
])  # fmt: skip
def test_what_a_reply_becomes_that_no_status_named_in_time(
    sender: psycopg.Connection[Any], options: dict[str, str], told: str, attempts: int, becomes: str
) -> None:
    lane = Lane(sender, **options)
    Reply.objects.filter(conversation=lane.row, sequence=1).update(attempts=attempts - 1)
    lane.write(lane.send(1, LOST))
    if told:
        insert = "INSERT INTO status (channel_id, platform_id, key, status) VALUES (%s, 'w1', %s, %s)"
        runtime.execute(insert, (lane.channel.id, lane.reply().key, told))
    assert lane.write(results.unreported(lane.look(1), lane.channel)).status == becomes
    reply = lane.reply()
    assert (reply.status, reply.attempts) == (becomes, attempts)
    assert (lane.due() is None) == (becomes == "unknown"), "staff decide now"
    assert (reply.not_before is None) == (becomes != "pending")
    assert lane.intend(lane.look(2)) is (becomes in results.SETTLED)


def test_a_failure_and_the_result_that_it_is_about_never_miss_each_other(sender: psycopg.Connection[Any]) -> None:
    lane = Lane(sender)
    first, key = lane.send(1, Sent(platform_id="w1")), lane.reply().key
    first.ord = 0
    result = [(sql("lock_ids"), {"ids": [lane.row.pk]}), (sql("commit_sends"), {"items": as_json([first])})]
    with database.connect("other") as other:
        with other.transaction():
            for statement in result:
                other.execute(*statement)
            assert lane.hear("failed", key=key) is LANE_LOCKED, "both are lost to each other"
        assert lane.hear("failed", key=key) == ("joined", lane.row.pk)
        second, key = lane.send(2, Sent(platform_id="w2")), lane.reply(2).key
        update = {"ord": 0, "channel_id": lane.channel.id, "platform_id": "w2", "key": str(key), "status": "failed"}
        with other.transaction():
            for name in ("lock_status_lanes", "apply_statuses"):
                found = other.execute(sql(name), {"items": as_json([update])}).fetchall()
            assert found == [(0, "kept", None)]
            assert SENDS.write(sender, [second]) == [LANE_LOCKED]
        lane.write(second)
    assert [lane.reply(n).status for n in (1, 2)] == ["failed", "failed"]


def test_only_a_send_that_nobody_would_recognise_waits_for_a_status(sender: psycopg.Connection[Any]) -> None:
    lane = Lane(sender)
    assert lane.send(1, Failed(reason="503")).status == "pending"
    generic = ChannelConfig(id=1, public_id="p", platform="generic", tenant_id=1)  # knows our keys for ever
    reply = msgspec.structs.replace(lane.look(2), age=3600.0)
    assert results.judge(reply, CLAIM, generic, LOST, False).status == "pending"


# ---------------------------------------------------------------- the order on the phone


@pytest.mark.parametrize("word", ["delivered", "read", "failed"])
def test_the_next_reply_waits_for_the_delivery_of_a_picture(sender: psycopg.Connection[Any], word: str) -> None:
    lane = Lane(sender)
    picture = lane.send(1, Sent(platform_id="w1"))
    text = lane.look(2)
    assert not lane.intend(text, picture), "the next reply began"
    assert lane.waits_until() is not None
    assert lane.due() == lane.waits_until()
    assert 0 < (lane.look(2).phone_wait or 0) <= results.PHONE_SECONDS
    assert lane.hear("sent") == ("joined", None)
    assert not lane.intend(text)
    assert lane.hear(word) == ("joined", lane.row.pk)
    assert lane.waits_until() is None
    assert lane.intend(text)


@pytest.mark.parametrize("between", ["taken over", "refused", "cancelled"])
def test_a_wait_ends_with_its_picture_also_where_the_replies_behind_it_are_settled_first(
    sender: psycopg.Connection[Any], between: str
) -> None:
    lane, anna = Lane(sender), make_staff()
    lane.write(lane.send(1, Sent(platform_id="w1")))
    if between == "refused":
        lane.write(results.result(lane.look(2), None, "expired"))
    elif between == "cancelled":
        actions.cancel_reply(lane.reply(2), anna, "a typo")
    if between != "taken over":
        actions.take_over(seen(lane.row), anna)
    actions.answer(seen(lane.row), anna, "I am here", taking_over=between == "taken over")
    assert lane.due() == lane.waits_until()
    assert not lane.intend(lane.look(3)), "it overtakes the picture"
    assert lane.hear("delivered") == ("joined", lane.row.pk)
    assert lane.waits_until() is None
    assert lane.intend(lane.look(3))


@pytest.mark.parametrize("how", ["afterwards", "meanwhile", "in time", "dead"])
def test_the_delivery_of_a_picture_of_which_only_a_status_says_that_it_was_sent_is_waited_for(
    sender: psycopg.Connection[Any], how: str
) -> None:
    lane = Lane(sender)
    picture, key = lane.send(1, LOST), lane.reply().key
    if how in ("afterwards", "in time"):
        lane.write(picture)
    if how == "in time":
        picture = results.unreported(lane.look(1), lane.channel)
        insert = "INSERT INTO status (channel_id, platform_id, key, status) VALUES (%s, 'w1', %s, 'sent')"
        runtime.execute(insert, (lane.channel.id, key))
    else:
        assert lane.hear("sent", key=key) == ("joined" if how == "afterwards" else "kept", None)
    if how == "dead":
        dead_workers.CLAIMED.write(sender, [CLAIM])
    elif how != "afterwards":
        lane.write(picture)
    assert lane.reply().status == "sent"
    assert not lane.intend(lane.look(2)), "it overtakes the picture"
    assert lane.due() == lane.waits_until()
    assert lane.hear("delivered") == ("joined", lane.row.pk)
    assert lane.intend(lane.look(2))


def test_nothing_waits_for_a_delivery_reported_before_the_send_was_recorded(sender: psycopg.Connection[Any]) -> None:
    lane = Lane(sender)
    picture = lane.send(1, Sent(platform_id="w1"))
    assert lane.hear("delivered") == ("kept", None)
    assert lane.intend(lane.look(2), picture)
    assert (lane.reply().delivered, lane.waits_until()) == ("delivered", None)


def test_after_a_wait_in_vain_nothing_waits_until_a_status_comes(sender: psycopg.Connection[Any]) -> None:
    """The phone is off: an album must not take 5 s for each of its pictures."""
    lane = Lane(sender)
    Reply.objects.filter(conversation=lane.row).update(body=PICTURE)
    lane.write(lane.send(1, Sent(platform_id="w1")))
    ended = lane.waits_until()
    assert ended is not None
    Conversation.objects.filter(pk=lane.row.pk).update(phone_until=ended - dt.timedelta(minutes=1))
    lane.write(lane.send(2, Sent(platform_id="w2")))
    assert lane.waits_until() == ended - dt.timedelta(minutes=1)
    assert lane.hear("delivered", platform_id="w1") == ("joined", None), "nothing is left to send"
    assert lane.waits_until() is None


def test_a_status_of_an_earlier_reply_ends_no_wait(sender: psycopg.Connection[Any]) -> None:
    lane = Lane(sender)
    Reply.objects.filter(conversation=lane.row).update(body=PICTURE)
    lane.write(lane.send(1, Sent(platform_id="w1")))
    assert lane.hear("delivered", platform_id="w1")[1] == lane.row.pk
    lane.write(lane.send(2, Sent(platform_id="w2")))
    assert lane.hear("read", platform_id="w1") == ("joined", None)
    assert lane.waits_until() is not None


@pytest.mark.parametrize("ending", ["asked", "lost", "deferred"])
def test_a_status_makes_no_lane_due_whose_next_reply_waits_for_something_else(
    sender: psycopg.Connection[Any], ending: str
) -> None:
    lane = Lane(sender, unknown_policy="ask")
    lane.write(lane.send(1, Sent(platform_id="w1")))
    Conversation.objects.filter(pk=lane.row.pk).update(phone_until=timezone.now() - dt.timedelta(minutes=1))
    lane.write(lane.send(2, Deferred(seconds=60.0, bucket="") if ending == "deferred" else LOST))
    if ending == "asked":
        lane.write(results.unreported(lane.look(2), lane.channel))
    due = lane.due()
    assert (due is None) == (ending == "asked")
    assert lane.hear("delivered") == ("joined", None)
    assert (lane.due(), lane.waits_until()) == (due, None)


def test_the_probe_of_a_paused_channel_is_a_lane_whose_next_reply_may_start(own_database: str) -> None:
    now, channel = timezone.now(), make_channel(platform="whatsapp")
    later = now + dt.timedelta(minutes=1)

    def lane(words: str, **fields: Any) -> int:
        return make_lane("handled", words, channel=channel, **{"send_due_at": now, **fields}).pk

    def probe() -> list[int]:
        values = {"channels": [channel.pk], "since": now, "sending": True, "untried": False, "many": 8}
        return [row[0] for row in runtime.read(sql("find_probe"), values)]

    lane("sent pending", phone_until=later), lane("sending pending"), lane("unknown pending"), lane("sent")
    in_doubt = lane("sent unknown", send_due_at=later)
    Reply.objects.filter(conversation=in_doubt, status="unknown").update(not_before=later)
    assert probe() == []
    may = lane("cancelled pending", send_due_at=later, next_reply_sequence=1, phone_until=now)
    Reply.objects.filter(conversation=may, status="pending").update(not_before=later)
    assert probe() == [may], "a probe goes before its retry time"
    Reply.objects.filter(conversation=in_doubt, status="unknown").update(not_before=now)
    Conversation.objects.filter(pk=in_doubt).update(send_due_at=now)
    assert probe() == [in_doubt]
