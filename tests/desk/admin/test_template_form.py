"""Where only a template reaches a person: what staff are offered, and what they send."""

from __future__ import annotations

import datetime as dt
import io
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.expressions import RawSQL
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from conversations.desk import answers, timeline
from conversations.models import Conversation, Reply, Template
from tests.kit.desk_scenes import make_channel, make_lane, make_reply, replies
from tests.kit.stored_files import PNG

YES = {"kind": "quick_reply", "text": "Yes", "takes": True}
TRACK = {"kind": "url", "text": "Track it", "takes": True, "must": True, "room": 5}
SHIPPED = {"body": "Order {{number}} comes {{day}}.", "named": True, "body_room": 9, "buttons": [YES, TRACK]}
FILLED = {"number": "17", "day": " today\0", "button 2": "17"}
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def lane() -> Conversation:
    """A lane whose window is closed, with three templates of which one can be sent."""
    made = make_lane("handled", "parked", channel=make_channel(platform="whatsapp"), window_until=timezone.now())
    add(made, "sale", "rejected")
    add(made, "shipped", "flagged", **SHIPPED)
    add(made, "carousel", odd="a part carousel")
    return made


def add(lane: Conversation, name: str, status: str = "approved", **shape: Any) -> Template:
    times = dict.fromkeys(("fetched_at", "status_at", "quality_at"), timezone.now())
    of = {"channel": lane.channel, "account": "1", "language": "de"}
    return Template.objects.create(**of, name=name, status=status, shape=shape, **times)


def page_of(client: Client, lane: Conversation, name: str = "change") -> str:
    answer = client.get(reverse(f"admin:conversations_conversation_{name}", args=[lane.pk]))
    return str(answer.json()["parts"]) if name == "live" else answer.content.decode()


def send(
    client: Client, lane: Conversation, template: Any, *,
    instead: Any = "", file: Any = "", shown: tuple[int, int] = (0, 1), **values: str,
) -> str:  # fmt: skip
    """Post the form, as filled while epoch and last reply were as ``shown``; the page that follows."""
    chosen = f"?template={getattr(template, 'pk', template)}&instead={instead}"
    address = reverse("admin:conversations_conversation_template", args=[lane.pk]) + chosen
    typed = {f"value {name}": value for name, value in values.items()} | ({"file": str(file)} if file else {})
    return client.post(
        address, {"epoch": shown[0], "last_reply_sequence": shown[1], **typed}, follow=True
    ).content.decode()


def test_a_template_is_offered_in_place_of_text_while_the_window_is_closed(chief: Client, lane: Conversation) -> None:
    closed, live = page_of(chief, lane), page_of(chief, lane, "live")
    for page in (closed, live):
        assert "Send a template instead" in page
        assert "Send again" not in page
        assert "closed since" in page
    assert re.search(r'id="answer" hidden', closed)
    assert re.search(r'id="offer">', closed)
    assert 'data-closed="yes"' in live
    Conversation.objects.update(window_until=timezone.now() + HOUR)
    opened = page_of(chief, lane)
    assert re.search(r'id="answer">', opened)
    assert re.search(r'id="offer" hidden', opened)
    assert "Send a template instead" not in opened


def test_the_live_page_shows_that_the_window_closes(lane: Conversation) -> None:
    with transaction.atomic():  # now() is when it began
        Conversation.objects.update(window_until=RawSQL("clock_timestamp()", ()))
        opened = timeline.version(lane.pk)
        assert timeline.version(lane.pk) == opened
    assert timeline.version(lane.pk) != opened


def test_a_template_is_filled_seen_and_sent(chief: Client, lane: Conversation) -> None:
    page = page_of(chief, lane, "template")
    assert re.findall(r"<option[^>]*>(.*?)</option>", page) == ["shipped (de)"]
    assert 'Order <span class="variable">number</span> comes' in page
    fields = re.findall(r'name="value ([^"]*)" .*?maxlength="(\d+)" required', page)
    assert fields == [("number", "9"), ("day", "9"), ("button 2", "5")]
    assert "button 2: <bdi>Track it</bdi>" in page
    shipped = Template.objects.get(name="shipped")
    refused = send(chief, lane, shipped, number="17")
    assert "day is missing; button 2 is missing" in refused
    assert 'value="17"' in refused
    assert "on its way" in send(chief, lane, shipped, **FILLED)
    lane.refresh_from_db()
    sent = Reply.objects.get(conversation=lane, sequence=2)
    assert (sent.body["text"], sent.author, lane.mode) == ("Order 17 comes today\ufffd.", "person", "human")
    assert "changed meanwhile" in send(chief, lane, shipped, **FILLED)
    for words in ("on its way", "changed meanwhile"):  # a double click while a person answers
        assert words in send(chief, lane, shipped, shown=(1, 2), **FILLED)


def test_a_template_takes_the_place_of_a_parked_reply_once(chief: Client, lane: Conversation) -> None:
    parked, shipped = Reply.objects.get(conversation=lane), Template.objects.get(name="shipped")
    for words in ("on its way", "changed meanwhile"):
        assert words in send(chief, lane, shipped, instead=parked.pk, **FILLED)
    lane.refresh_from_db()
    parked.refresh_from_db()
    assert (replies(lane), parked.error, lane.mode) == ("cancelled pending", "replaced by 2", "bot")
    assert Reply.objects.get(conversation=lane, sequence=2).body["template"]["name"] == "shipped"


def test_what_cannot_be_sent_any_more_is_not_sent(chief: Client, lane: Conversation) -> None:
    elsewhere = add(make_lane(channel=make_channel(platform="whatsapp")), "theirs")
    for row in (Template.objects.get(name="sale"), elsewhere, 0):
        assert "please choose another" in send(chief, lane, row)
    theirs = make_reply(make_lane(), 1, "parked")
    send(chief, lane, Template.objects.get(name="shipped"), instead=theirs.pk)
    theirs.refresh_from_db()
    assert (replies(lane), theirs.status) == ("parked", "parked")
    Template.objects.all().delete()
    assert f"fetch_templates {lane.channel.public_id}" in page_of(chief, lane, "template")


PLACE = {"kind": "location", "latitude": 52.52, "longitude": -13.4}
HEADERS: list[tuple[str, str, bool, Any]] = [
    ("location", "52.52, -13.4", False, PLACE),
    ("location", "Berlin", False, "place is its latitude"),
    ("image", "", True, {"kind": "image"}),
    ("video", "", True, "attachment of the kind video"),
    ("image", "", False, "header is missing"),
]


@pytest.mark.parametrize(("media", "typed", "has_file", "becomes"), HEADERS)
def test_a_header_takes_a_file_or_a_place(
    chief: Client, lane: Conversation, media: str, typed: str, has_file: bool, becomes: Any
) -> None:
    row = add(lane, "picture", media=media, body="Look")
    staff = User.objects.get(username="chief")
    file = answers.keep_file(lane, staff, io.BytesIO(PNG), "plan.png").media if has_file else ""
    page = send(chief, lane, row, header=typed, file=file)
    sent = Reply.objects.filter(conversation=lane, sequence=2).first()
    if isinstance(becomes, str):
        assert becomes in page
        assert sent is None
    else:
        assert sent is not None
        assert sent.body["template"]["media"].items() >= becomes.items()
        assert ("<img" in page) == has_file
