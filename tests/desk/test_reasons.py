"""Every reason in plain words, from rows."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from conversations import registry, runtime
from conversations.delivering.limiter import Limiter, Request
from conversations.desk import actions, facts, reasons
from conversations.models import Channel, Conversation, Message, Pause, Turn, Worker
from tests.kit.desk_scenes import make_channel, make_lane, make_message, make_reply, make_staff, seen

NOW = timezone.now
MINUTE = dt.timedelta(minutes=1)


def say(lane: Conversation) -> list[str]:
    """What the page of ``lane`` says, now."""
    around = facts.look_around([lane.channel_id])
    return [reason.text for reason in reasons.reasons(facts.read([lane.pk])[lane.pk], around, NOW())]


def weight(lane: Conversation) -> str:
    around = facts.look_around([lane.channel_id])
    return reasons.reasons(facts.read([lane.pk])[lane.pk], around, NOW())[0].weight


def failing() -> Conversation:
    lane = make_lane("pending", attempts=3, not_before=NOW() + MINUTE)
    head = Message.objects.get(conversation=lane)
    Turn.objects.create(
        conversation=lane, message_id=head.pk, worker=uuid.uuid4(), outcome="failed", started_at=NOW(),
        error_type="ValueError", error_place="orders/bots.py:41",
    )  # fmt: skip
    return lane


def waiting_for_a_number() -> Conversation:
    lane = make_lane("handled", last_key=6, gap_since=NOW(), wait_until=NOW() + MINUTE)
    make_message(lane, 0, "waiting", external_sequence=9)
    return lane


def settling() -> Conversation:
    lane = make_lane("", wait_until=NOW() + MINUTE)
    make_message(lane, 0, "waiting", order_key=9, release_at=NOW() + MINUTE)
    return lane


def handed_over() -> Conversation:
    lane = make_lane("handled handled", mode="human")
    Message.objects.filter(conversation=lane, sequence=2).update(note="handed over: wants a refund")
    return lane


def in_hand() -> Conversation:
    lane = make_lane("pending")
    Worker.objects.create(incarnation=uuid.uuid4(), kind="handle", running=[1, lane.pk])
    return lane


def with_worker(kind: str, lane: Conversation) -> Conversation:
    Worker.objects.create(incarnation=uuid.uuid4(), kind=kind)
    return lane


def retried_reply() -> Conversation:
    lane = make_lane("handled", "pending")
    lane.reply_set.update(attempts=2, error="connection refused", not_before=NOW() + MINUTE)
    return lane


def told_to_wait() -> Conversation:
    """By the limiter itself: the page must find the wait under the key that a sender gives it."""
    lane = make_lane("handled", "pending")
    channel = registry.channel(lane.channel_id)
    assert channel is not None
    request = Request(channel=channel, chat=lane.chat, is_group=False, limits=())
    Limiter().block(request, "chat", 60.0, "Too Many Requests")
    return lane


def maybe_taken() -> Conversation:
    lane = make_lane("handled", "unknown pending")
    lane.reply_set.filter(sequence=1).update(error="reset", not_before=NOW() + MINUTE)
    return lane


def behind_a_picture() -> Conversation:
    lane = make_lane("handled", "sent cancelled pending", phone_until=dt.datetime(2999, 1, 1, 12, tzinfo=dt.UTC))
    lane.reply_set.filter(sequence=1).update(body={"text": "look", "media": {"kind": "image"}})
    return lane


def stopped(lane: Conversation, stops: str, **fields: Any) -> Conversation:
    values = {"scope": "channel", "target": str(lane.channel_id), "since": NOW(), "failures": 8, **fields}
    Pause.objects.create(stops=stops, **values)
    return lane


def switched_off() -> Conversation:
    lane = make_lane("pending", channel=make_channel(name="Shop EU"))
    Channel.objects.filter(pk=lane.channel_id).update(active=False)
    return lane


def opted_out() -> Conversation:
    lane = make_lane("handled", "parked")
    actions.set_opt_out(lane.pk, make_staff("anna"), "by phone", out=True)
    return lane


LATE = dt.timedelta(minutes=-2)
SCENES: list[tuple[str, Callable[[], Conversation], str, str]] = [
    ("idle", lambda: make_lane("handled", "sent"), "idle", "Nothing is waiting here."),
    ("next", lambda: make_lane("handled pending", due_at=NOW()), "flows", "Message 2 is next."),
    ("in hand", in_hand, "flows", "Message 1 is with the bot now."),
    ("failing", failing, "waits",
     "The bot failed 3 of 5 times with ValueError at orders/bots.py:41; it is tried again."),
    ("suspect", lambda: make_lane("pending", suspect=True), "waits",
     "Message 1: its last worker died; the next turn runs in a process of its own."),
    ("late", lambda: make_lane("pending", due_at=NOW() + LATE), "stuck",
     "Message 1 should have been handled by now; no worker is running."),
    ("late among workers", lambda: with_worker("handle", make_lane("pending", due_at=NOW() + LATE)), "stuck",
     "Message 1 should have been handled by now; no worker has taken it."),
    ("blocked", lambda: make_lane("parked pending", blocked=True, next_sequence=1), "stuck",
     "Message 1 is parked and holds up what follows."),
    ("hole", lambda: make_lane("missing pending", blocked=True, next_sequence=1), "stuck",
     "Message 1 stands for a hole and holds up what follows."),
    ("gap", waiting_for_a_number, "waits", "Waiting for number 7 of the platform's order."),
    ("settling", settling, "waits", "Waiting for an earlier message that may still come."),
    ("handed over", handed_over, "stuck",
     "A person is needed: handed over: wants a refund; nobody has taken it yet."),
    ("switched off", switched_off, "stuck", "Channel 'Shop EU' is switched off; what comes is stored and waits."),
    ("bot paused",
     lambda: stopped(make_lane("pending"), "handling", scope="bot", target="echo", reason="KeyError at b.py:1"),
     "stuck", "Bot 'echo' is paused after 8 failures in a row: KeyError at b.py:1."),
    ("parked", lambda: make_lane("parked handled"), "stuck", "Message 1 was parked."),
    ("unknown", lambda: make_lane("handled", "unknown pending"), "stuck",
     "Reply 1 may or may not have arrived; please decide."),
    ("maybe taken", maybe_taken, "waits",
     "Reply 1 may or may not have arrived: reset; the platform may still report it."),
    ("behind a picture", behind_a_picture, "waits",
     "Reply 3 waits until the picture before it was delivered, at most until 2999-01-01 12:00."),
    ("sending", lambda: make_lane("handled", "sending"), "flows", "Reply 1 is being sent."),
    ("to send", lambda: make_lane("handled", "sent pending", send_due_at=NOW()), "flows",
     "Reply 2 is about to be sent."),
    ("send late", lambda: with_worker("send", make_lane("handled", "pending", send_due_at=NOW() + LATE)), "stuck",
     "Reply 1 should have been sent by now; no sender has taken it."),
    ("retried", retried_reply, "waits", "Reply 1 failed 2 of 10 times: connection refused; it is tried again."),
    ("told to wait", told_to_wait, "waits", "Reply 1: the platform asked for a pause: Too Many Requests."),
    ("refused", lambda: make_lane("handled", "parked"), "stuck", "Reply 1 was refused."),
    ("failed later", lambda: make_lane("handled", "failed"), "stuck",
     "Reply 1 was taken by the platform, which later said that it failed."),
    ("blocked us", lambda: make_lane("handled", "parked", unreachable_since=NOW()), "waits",
     "The person has blocked us; each reply is parked until they write and goes out only if sent again."),
    ("opted out", opted_out, "waits",
     "The person wants no more messages (anna); each reply is parked and goes out only if sent again."),
]  # fmt: skip


def test_a_bot_is_unknown_while_workers_live_and_all_say_that_they_do_not_know_it() -> None:
    lane = make_lane("pending", due_at=NOW())
    unknown = ["No running worker knows the bot 'echo'; what comes is stored and waits."]
    assert say(lane) != unknown, "no worker lives: that is the cause"
    others = Worker.objects.create(incarnation=uuid.uuid4(), kind="handle", bots=["orders"])
    assert say(lane) == unknown
    Worker.objects.create(incarnation=uuid.uuid4(), kind="send")
    assert say(lane) == unknown
    old = Worker.objects.create(incarnation=uuid.uuid4(), kind="handle")  # of a version that does not say
    assert say(lane) != unknown
    Worker.objects.filter(pk=old.pk).update(dead=True)
    Worker.objects.filter(pk=others.pk).update(bots=["echo", "orders"])
    assert say(lane) != unknown


@pytest.mark.parametrize(("make", "heavy", "text"), [scene[1:] for scene in SCENES], ids=[scene[0] for scene in SCENES])
def test_why_a_conversation_stands_as_it_stands(make: Callable[[], Conversation], heavy: str, text: str) -> None:
    lane = make()
    assert say(lane) == [text]
    assert weight(lane) == heavy


def test_who_answers_and_whether_somebody_waits_for_words(anna: User) -> None:
    lane = make_lane("pending")
    actions.take_over(seen(lane), anna)
    assert say(lane) == ["A person (anna) answers here; the newest message waits for words."]
    actions.answer(seen(lane), anna, "hello")
    assert say(lane)[0] == "A person (anna) answers here."
    Conversation.objects.filter(pk=lane.pk).update(last_sequence=2)
    make_message(lane, 2)
    assert "waits for words" in say(lane)[0]


@pytest.mark.parametrize(("verb", "note"), [("skip", "skipped by anna: spam"), ("park", "parked by anna: spam")])
def test_the_reason_of_the_hand_over_outlives_a_skip(anna: User, verb: str, note: str) -> None:
    lane = handed_over()
    for number in (3, 4):
        make_message(lane, number)
        Conversation.objects.filter(pk=lane.pk).update(last_sequence=number)
        getattr(actions, verb)(seen(lane), anna, "spam")
        assert say(lane)[0] == "A person is needed: handed over: wants a refund; nobody has taken it yet."
        assert Message.objects.get(conversation=lane, sequence=number).note == note


def test_who_paused_it_and_why(anna: User) -> None:
    lane = make_lane("pending")
    actions.pause(lane.pk, anna, "a strange order")
    assert say(lane) == ["The bot is paused here by anna: a strange order."]


def test_a_cause_names_how_many_wait_for_it() -> None:
    channel = make_channel(name="Shop")
    lane = make_lane("handled", "pending", channel=channel, send_due_at=NOW())
    lane = stopped(lane, "sending", reason="its token is refused")
    for _ in range(3):
        make_lane("handled", "pending", channel=channel, send_due_at=NOW())
    assert say(lane) == ["Channel 'Shop' cannot send: its token is refused; 4 conversations wait."]


def test_a_held_installation_is_the_reason(settings: Any) -> None:
    lane = make_lane("handled", "pending", send_due_at=NOW())
    settings.PUBLIC_URL = "https://staging.example"
    runtime.begin()
    assert say(lane)[0].startswith("Reply 1 is held: this database belongs to")
    asked = make_lane("pending", channel=make_channel(bot="http"))
    assert say(asked)[0].startswith("Message 1 is held, since bot 'http' is outside: this database belongs to")


# ---------------------------------------------------------------- stuck


def stuck(*channels: Channel) -> list[int]:
    ids = [channel.pk for channel in channels]
    return facts.find_stuck(ids, facts.look_around(ids), 50)


@pytest.mark.parametrize(("name", "make", "heavy"), [scene[:3] for scene in SCENES], ids=[scene[0] for scene in SCENES])
def test_what_needs_a_person_is_in_the_list(name: str, make: Callable[[], Conversation], heavy: str) -> None:
    lane = make()
    alone = name not in ("switched off", "bot paused")  # one cause stands for all its conversations
    expected = (heavy == "stuck" and alone) or name in ("failing", "blocked us", "opted out")
    assert stuck(lane.channel) == ([lane.pk] if expected else [])


def test_those_longest_so_come_first_and_other_channels_do_not() -> None:
    channel = make_channel()
    lanes = [make_lane("pending", channel=channel, due_at=NOW() + LATE * number) for number in (1, 3, 2)]
    make_lane("pending", due_at=NOW() + LATE)
    assert stuck(channel) == [lanes[1].pk, lanes[2].pk, lanes[0].pk]


def test_a_person_who_answered_is_not_waited_for(anna: User) -> None:
    lane = make_lane("pending")
    actions.take_over(seen(lane), anna)
    assert stuck(lane.channel) == [lane.pk]
    actions.answer(seen(lane), anna, "hello")
    Conversation.objects.filter(pk=lane.pk).update(send_due_at=None)
    assert stuck(lane.channel) == []
    make_reply(lane, 2, "parked")
    assert stuck(lane.channel) == [lane.pk]
