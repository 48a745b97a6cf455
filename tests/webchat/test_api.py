"""The API of the chat page, on the real database."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any
from unittest import mock

import msgspec
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from channels_ingest.adapters.web import Web
from channels_ingest.webchat import caps, timeline, tokens
from conversations import registry, runtime
from conversations.contracts import Attachment, Choice, ReplyBody
from conversations.errors import Busy, NotStored
from conversations.models import Channel, Conversation, Desk, Message, Pause, Quarantine, ReceiptBody, Reply
from conversations.storing import intake
from tests.webchat.conftest import OWN, SECRET, SHOP, Visitor, make_channel

HOSTILE = '</script><img src=x onerror=alert(1)>" onclick=alert(1) \u202e javascript:alert(1) {{ 7*7 }}'


def answer(body: ReplyBody, status: str = "sent", author: str = "bot") -> Reply:
    """A reply in the only lane that there is, as the outbox leaves it."""
    lane = Conversation.objects.get()
    number = lane.last_reply_sequence + 1
    key = str(uuid.uuid4())
    with connection.cursor() as cursor:
        settled = number if status == "pending" else number + 1
        cursor.execute("UPDATE conversation SET last_reply_sequence = %s, next_reply_sequence = %s", (number, settled))
    return Reply.objects.create(conversation=lane, channel_id=lane.channel_id, sequence=number,
                                body=msgspec.to_builtins(body), status=status, author=author, key=key,
                                platform_id=key if status == "sent" else "",
                                settled_at=timezone.now() if status == "sent" else None)  # fmt: skip


def finish() -> None:
    """As if every message had been handled."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE message SET status = 'handled', settled_at = now()")
        cursor.execute("UPDATE conversation SET next_sequence = last_sequence + 1")


# ---------------------------------------------------------------- posting


def test_a_message_is_stored_once_however_often_it_comes(visitor: Visitor) -> None:
    for _ in range(3):
        assert visitor.say("Hello", "client-id-1").status_code == 200
    stored = Message.objects.get()
    assert (stored.text, stored.sequence, stored.platform_id) == ("Hello", 1, "client-id-1")
    lane = Conversation.objects.get()
    assert lane.chat == lane.user == tokens.read(_config(visitor), visitor.token)


def test_messages_keep_the_order_in_which_they_were_posted(visitor: Visitor) -> None:
    for number in range(10):
        visitor.say(str(number))
    assert list(Message.objects.order_by("sequence").values_list("text", flat=True)) == [str(n) for n in range(10)]


def test_two_visitors_may_use_the_same_client_id(channel: Channel, visitor: Visitor) -> None:
    other = Visitor.of(channel)
    visitor.say("mine", "client-id-1")
    other.say("other", "client-id-1")
    assert Conversation.objects.count() == Message.objects.count() == 2
    assert [item["text"] for item in visitor.poll().json()["items"]] == ["mine"]


def test_a_command_is_read_as_one(visitor: Visitor) -> None:
    visitor.say("/Help orders please")
    payload = Message.objects.get().payload
    assert (payload["command"], payload["args"]) == ("Help", "orders please")


UNUSABLE: list[tuple[Any, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b'{"client_id": "client-id-1"}', 400),
    ({"client_id": "client-id-1", "text": "  \n "}, 400),
    ({"client_id": "client-id-1", "text": 5}, 400),
    ({"client_id": "short", "text": "x"}, 400),
    ({"client_id": "client-id-1\x00", "text": "x"}, 400),
    ({"client_id": ["client-id-1"], "text": "x"}, 400),
    ({"client_id": "client-id-1", "text": "x" * 4001}, 413),
    ({"client_id": "client-id-1", "text": "🍵" * 4001}, 413),
    ({"client_id": "client-id-1", "text": "x", "more": "x" * 70_000}, 413),
    ({"client_id": "client-id-1", "choice": "buy"}, 400),
    ({"client_id": "client-id-1", "choice": "buy", "reply": "\x00"}, 400),
    ({"client_id": "client-id-1", "choice": "buy", "reply": "\ud800"}, 400),
    ({"client_id": "client-id-1", "choice": {"id": "buy"}, "reply": "x"}, 400),
]


def test_what_can_never_be_stored_is_refused_for_good(visitor: Visitor, subtests: pytest.Subtests) -> None:
    for body, status in UNUSABLE:
        with subtests.test(body=str(body)[:60]):
            assert visitor.post(body).status_code == status
    assert not Message.objects.exists()
    assert not Quarantine.objects.exists()


def test_nul_and_lone_surrogates_in_a_text_are_stored_as_replacement_characters(visitor: Visitor) -> None:
    assert visitor.say("a\x00b\ud800c").status_code == 200
    assert Message.objects.get().text == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("error", [Busy("full"), NotStored("away"), OSError("disk")])
def test_a_fault_of_ours_asks_to_come_again(visitor: Visitor, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "accept", mock.Mock(side_effect=error))
    refused = visitor.say("Hello")
    assert refused.status_code == 503
    assert int(refused["Retry-After"]) >= 1


def test_a_visitor_who_floods_is_slowed_down_and_nothing_is_lost(visitor: Visitor) -> None:
    answers = [visitor.say(str(number)) for number in range(caps.MESSAGE_BURST + 5)]
    codes = [each.status_code for each in answers]
    assert codes.count(200) == Message.objects.count() >= caps.MESSAGE_BURST
    assert codes[-1] == 429
    assert int(answers[-1]["Retry-After"]) >= 1


def test_other_words_under_the_same_id_are_refused_and_staff_have_nothing_to_settle(visitor: Visitor) -> None:
    answers = [visitor.say(f"words {number}", "client-id-1").status_code for number in range(20)]
    assert answers == [200] + [409] * 19
    assert visitor.say("words 0", "client-id-1").status_code == 200  # a repetition is none
    assert Message.objects.get().text == "words 0"
    assert not Quarantine.objects.exists()


def test_nothing_is_kept_of_a_request_but_its_message(visitor: Visitor) -> None:
    body = {"client_id": "client-id-1", "text": "Hi", "junk": "x" * 60_000}
    assert visitor.post(body).status_code == 200
    assert Message.objects.get().text == "Hi"
    assert not ReceiptBody.objects.exists()


@pytest.mark.parametrize("cap", ["ADDRESS", "CHANNEL"])
def test_many_visitors_together_are_slowed_down_too(
    channel: Channel, cap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caps, f"{cap}_SECONDS", 1000)
    monkeypatch.setattr(caps, f"{cap}_BURST", 3)
    assert [Visitor.of(channel).say(str(n)).status_code for n in range(5)] == [200, 200, 200, 429, 429]


# ---------------------------------------------------------------- who, and from where


def test_nobody_reads_or_writes_without_a_token_of_this_channel(channel: Channel, visitor: Visitor) -> None:
    visitor.say("secret")
    stranger = Visitor(channel)
    for token in ("", "guess", tokens.issue(_config(Visitor(make_channel("other"))), "v:x")):
        stranger.token = token
        assert stranger.poll().status_code == 401
        assert stranger.say("x").status_code == 401


def test_cookies_and_a_logged_in_user_change_nothing(visitor: Visitor) -> None:
    chief = Client()
    chief.force_login(User.objects.create_superuser("chief"), backend="django.contrib.auth.backends.ModelBackend")
    stranger = chief.get(f"{visitor.base}/messages/")
    assert stranger.status_code == 401
    assert "Set-Cookie" not in visitor.poll().headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", SHOP + ".evil.example"])
def test_another_web_page_can_neither_begin_nor_post(visitor: Visitor, origin: str) -> None:
    visitor.origin = origin
    assert visitor.begin().status_code == 403
    refused = visitor.say("x")
    assert refused.status_code == 403
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert not Message.objects.exists()


def test_an_allowed_origin_may_use_the_api_from_its_own_scripts(channel: Channel) -> None:
    shop = Visitor(channel, origin=SHOP)
    assert shop.begin()["Access-Control-Allow-Origin"] == SHOP
    assert shop.say("Hello").status_code == 200
    headers = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}
    preflight = shop.client.options(f"{shop.base}/messages/", headers=headers)
    assert preflight.status_code == 204
    assert "Authorization" in preflight["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in preflight.headers


def test_a_customer_whom_the_site_vouches_for_has_one_conversation_on_all_devices(channel: Channel) -> None:
    devices = [Visitor(channel), Visitor(channel)]
    for device in devices:
        began = device.begin(id="7", hash=tokens.identity_hash(SECRET, "7"))
        assert began.json()["identified"] is True
        device.say("Hello")
    assert Conversation.objects.get().user == "i:7"
    assert len(devices[0].poll().json()["items"]) == 2


def test_a_wrong_hash_is_refused_and_makes_no_session(channel: Channel) -> None:
    refused = Visitor(channel).begin(id="7", hash=tokens.identity_hash("guess", "7"))
    assert refused.status_code == 403
    assert "token" not in refused.json()


def test_an_address_may_begin_so_many_conversations(chat: None) -> None:
    channel = make_channel("small", new_per_hour=12)
    answers = [Visitor(channel).begin() for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert 0 < int(answers[-1]["Retry-After"]) <= 300
    vouched = Visitor(channel).begin(id="7", hash=tokens.identity_hash(SECRET, "7"))
    assert vouched.status_code == 200  # no cap on customers


def test_guessing_hashes_counts_as_beginning(chat: None) -> None:
    channel = make_channel("small", new_per_hour=12)
    assert [Visitor(channel).begin(id="7", hash="x").status_code for _ in range(3)] == [403, 403, 429]


def test_unknown_and_closed_chats(channel: Channel, visitor: Visitor) -> None:
    assert Client().post("/web/unknown/session/", headers={"Origin": OWN}).status_code == 404
    Channel.objects.update(active=False)
    runtime.begin()
    assert Visitor(channel).begin().status_code == 404
    assert visitor.say("still stored").status_code == 200


def test_wrong_methods(visitor: Visitor) -> None:
    headers = {"Origin": OWN, "Authorization": f"Bearer {visitor.token}"}
    assert visitor.client.get(f"{visitor.base}/session/", headers=headers).status_code == 405
    assert visitor.client.delete(f"{visitor.base}/messages/", headers=headers).status_code == 405


# ---------------------------------------------------------------- polling


def hand_over() -> Conversation:
    """The lane's mode as a bot's hand-over leaves it; nobody has taken the conversation."""
    Conversation.objects.filter(pk=Conversation.objects.get().pk).update(mode="human")
    return Conversation.objects.get()


def test_nobody_is_named_before_somebody_took_the_conversation(visitor: Visitor) -> None:
    visitor.say("one")
    hand_over()
    seen = visitor.poll().json()
    assert (seen["mode"], seen["colleague"]) == ("human", None)


@pytest.mark.parametrize("first_name", ["Anna", "", "Zoë"])
def test_the_first_name_of_who_took_it_is_news_and_the_login_stays_secret(visitor: Visitor, first_name: str) -> None:
    visitor.say("one")
    lane = hand_over()
    seen = visitor.poll()
    anna = User.objects.create_user(f"anna{first_name}@secret.example", first_name=first_name)
    Desk.objects.create(conversation=lane, assignee=anna)
    taken = visitor.poll(seen.json()["cursor"], **{"If-None-Match": seen["ETag"]})
    assert (taken.status_code, taken.json()["colleague"]) == (200, first_name)
    assert b"secret.example" not in taken.content
    assert taken["ETag"].isascii()


def test_whoever_answers_without_taking_it_is_named_too(visitor: Visitor) -> None:
    visitor.say("one")
    hand_over()
    anna = User.objects.create_user("ann", first_name="Ann")
    answered = answer(ReplyBody(text="Here I am"), author="person")
    Reply.objects.filter(pk=answered.pk).update(staff=anna)
    assert visitor.poll().json()["colleague"] == "Ann"


@pytest.mark.parametrize("scope", ["bot", "channel", "tenant", "counting only"])
def test_a_stopped_channel_neither_answers_nor_types(channel: Channel, visitor: Visitor, scope: str) -> None:
    visitor.say("one")
    assert (visitor.poll().json()["answering"], visitor.poll().json()["busy"]) == (True, True)
    target = {"bot": channel.bot, "channel": str(channel.pk), "tenant": str(channel.tenant_id)}.get(scope, channel.bot)
    since = None if scope == "counting only" else timezone.now()
    of = scope if since else "bot"
    Pause.objects.create(scope=of, target=target, stops="handling", since=since)
    runtime.begin()
    seen = visitor.poll().json()
    assert (seen["answering"], seen["busy"]) == ((True, True) if since is None else (False, False))


@pytest.mark.parametrize(("rows", "stop"), [
    (Channel, {"active": False}), (Conversation, {"paused_at": timezone.now()}), (Conversation, {"blocked": True}),
])  # fmt: skip
def test_a_channel_that_is_off_and_a_stopped_conversation_neither_answer_nor_type(
    visitor: Visitor, rows: Any, stop: dict[str, Any]
) -> None:
    visitor.say("one")
    rows.objects.filter(pk=rows.objects.get().pk).update(**stop)
    runtime.begin()
    seen = visitor.poll().json()
    assert (seen["answering"], seen["busy"]) == (False, False)


def test_an_empty_conversation(visitor: Visitor) -> None:
    seen = visitor.poll().json()
    assert (seen["items"], seen["busy"], seen["mode"], seen["cursor"]) == ([], False, "bot", "0.0")


def test_a_poll_returns_each_message_once_in_order_and_then_304(visitor: Visitor) -> None:
    visitor.say("one")
    assert visitor.poll().json()["busy"] is True
    finish()
    answer(ReplyBody(text="first"))
    answer(ReplyBody(text="second", choices=(Choice(id="buy", title="Buy"),)))
    seen = visitor.poll()
    assert [item["text"] for item in seen.json()["items"]] == ["one", "first", "second"]
    assert seen.json()["items"][2]["choices"] == [{"id": "buy", "title": "Buy"}]
    assert seen.json()["busy"] is False
    cursor, etag = seen.json()["cursor"], seen["ETag"]
    unchanged = visitor.poll(cursor, **{"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    answer(ReplyBody(text="third"), author="person")
    fresh = visitor.poll(cursor, **{"If-None-Match": etag}).json()
    assert [(item["text"], item["author"]) for item in fresh["items"]] == [("third", "person")]


def test_a_change_of_typing_or_mode_alone_is_news(visitor: Visitor) -> None:
    visitor.say("one")
    seen = visitor.poll()
    cursor, etag = seen.json()["cursor"], seen["ETag"]
    assert visitor.poll(cursor, **{"If-None-Match": etag}).status_code == 304
    finish()
    changed = visitor.poll(cursor, **{"If-None-Match": etag})
    assert (changed.status_code, changed.json()["busy"]) == (200, False)
    Conversation.objects.filter(pk=Conversation.objects.get().pk).update(mode="human")
    changed = visitor.poll(cursor, **{"If-None-Match": changed["ETag"]})
    assert (changed.status_code, changed.json()["mode"]) == (200, "human")


@pytest.mark.parametrize("status", ["pending", "cancelled", "parked", "unknown"])
def test_a_reply_is_shown_only_once_it_is_sent(visitor: Visitor, status: str) -> None:
    visitor.say("one")
    finish()
    answer(ReplyBody(text="not yet"), status=status)
    seen = visitor.poll().json()
    assert [item["text"] for item in seen["items"]] == ["one"]
    assert seen["busy"] is (status == "pending")


NO_CURSORS = ["", "x", "-1.0", "1", "99999999999999999999.1", "1.1; DROP TABLE reply", "\x00", "１.１"]


def test_a_cursor_that_is_none_means_from_the_start(visitor: Visitor, subtests: pytest.Subtests) -> None:
    visitor.say("one")
    for after in NO_CURSORS:
        with subtests.test(after=after):
            assert len(visitor.poll(after).json()["items"]) == 1


def test_a_poll_with_too_many_fields_is_the_visitors_fault(visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    answer = visitor.client.get(f"{visitor.base}/messages/?{'a&' * 1001}", headers=visitor._headers({}))
    assert answer.status_code == 400
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_long_conversation_opens_with_its_newest_part(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST", 5)
    for number in range(12):
        visitor.say(str(number))
    opened = visitor.poll().json()
    assert [item["text"] for item in opened["items"]] == ["7", "8", "9", "10", "11"]
    behind = visitor.poll("2.0").json()
    assert [item["text"] for item in behind["items"]] == ["2", "3", "4", "5", "6"]
    assert [item["text"] for item in visitor.poll(behind["cursor"]).json()["items"]] == ["7", "8", "9", "10", "11"]


@pytest.mark.parametrize(("busy", "polls"), [(False, 10), (True, 19)])
def test_a_visitor_who_polls_too_often_is_told_to_wait(
    visitor: Visitor, busy: bool, polls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caps, "POLL_SECONDS", 1000)  # as if no time passed
    visitor.say("one")
    if not busy:
        finish()
    answers = [visitor.poll() for _ in range(polls + 1)]
    assert [each.status_code for each in answers[:-1]].count(200) == polls
    assert answers[-1].status_code == 429
    assert int(answers[-1]["Retry-After"]) >= 1


def test_a_poll_that_brings_nothing_counts_a_tenth(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor.say("one")
    finish()
    seen = visitor.poll()
    monkeypatch.setattr(caps, "POLL_SECONDS", 1000)
    runtime.begin()
    answers = [visitor.poll(seen.json()["cursor"], **{"If-None-Match": seen["ETag"]}) for _ in range(95)]
    codes = [each.status_code for each in answers]
    assert codes[:91] == [304] * 91
    assert codes[91:] == [429] * 4


def test_the_visitors_of_an_address_share_a_limit_of_polls(
    channel: Channel, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caps, "POLL_SECONDS", 1000)
    monkeypatch.setattr(caps, "ADDRESS_POLLS", 1)
    other = Visitor.of(channel)
    assert {visitor.poll().status_code for _ in range(10)} == {200}
    assert other.poll().status_code == 429


def test_an_answer_is_bounded_in_bytes_and_what_is_left_comes_with_the_next_polls(visitor: Visitor) -> None:
    texts = [f"{number:04}" + "🍵" * 3996 for number in range(30)]  # 480 kB
    for text in texts:
        assert visitor.say(text).status_code == 200
        answer(ReplyBody(text=text))
    opened = visitor.poll()
    assert len(opened.content) <= 256 * 1024
    assert [item["text"] for item in opened.json()["items"]][-1] == texts[-1]
    assert opened.json()["cursor"] == "30.30"
    cursor, seen = "1.1", []
    while items := (polled := visitor.poll(cursor)).json()["items"]:
        assert len(polled.content) <= 256 * 1024
        cursor, seen = polled.json()["cursor"], seen + items
    for type_ in ("message", "reply"):
        assert [item["text"] for item in seen if item["type"] == type_] == texts[1:]


def test_one_item_larger_than_a_window_is_shown(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "BYTES", 10)
    for text in ("one", "two", "three"):
        visitor.say(text)
    assert [item["text"] for item in visitor.poll().json()["items"]] == ["three"]
    assert [item["text"] for item in visitor.poll("1.0").json()["items"]] == ["two"]


def test_a_poll_is_one_query(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor.say("one")
    visitor.poll()
    queries: list[str] = []
    read = runtime.read
    monkeypatch.setattr(runtime, "read", lambda query, params=(): queries.append(query) or read(query, params))
    visitor.poll()
    assert len(queries) == 1


def test_a_poll_walks_indexes_only(visitor: Visitor) -> None:
    visitor.say("one")
    params = (0, 0, timeline.MOST, timeline.BYTES, 1, "v:x", "v:x")
    runtime.read("SET enable_seqscan = off")
    plan = "\n".join(row[0] for row in runtime.read("EXPLAIN " + timeline._query(), params))
    assert "Seq Scan" not in plan
    for index in ("conversation_once", "message_sequence_once", "reply_sequence_once"):
        assert index in plan


# ---------------------------------------------------------------- buttons


def test_a_button_that_was_offered_can_be_pressed(visitor: Visitor) -> None:
    visitor.say("one")
    offered = answer(ReplyBody(text="?", choices=(Choice(id="buy", title="Buy it"),)))
    press = {"client_id": "client-id-2", "choice": "buy", "reply": offered.platform_id}
    assert visitor.post(press).status_code == visitor.post(press).status_code == 200
    pressed = Message.objects.get(kind="button")
    assert (pressed.text, pressed.payload["payload"]) == ("Buy it", "buy")
    item = next(item for item in visitor.poll().json()["items"] if item["id"] == "client-id-2")
    assert (item["text"], item["choice"], item["reply"]) == ("Buy it", "buy", offered.platform_id)


def test_no_other_button_can_be_pressed(channel: Channel, visitor: Visitor) -> None:
    visitor.say("one")
    offered = answer(ReplyBody(text="?", choices=(Choice(id="buy", title="Buy it"),)))
    refund = {"client_id": "client-id-2", "choice": "refund", "reply": offered.platform_id}
    assert visitor.post(refund).status_code == 400
    other = Visitor.of(channel)
    assert other.post({**refund, "choice": "buy"}).status_code == 400  # offered to somebody else
    assert Message.objects.count() == 1


# ---------------------------------------------------------------- hostile words


def test_hostile_text_travels_as_data(visitor: Visitor) -> None:
    visitor.say(HOSTILE)
    answer(ReplyBody(text=HOSTILE, choices=(Choice(id=HOSTILE, title=HOSTILE),)))
    seen = visitor.poll()
    assert seen["Content-Type"] == "application/json"
    assert seen["X-Content-Type-Options"] == "nosniff"
    assert [item["text"] for item in json.loads(seen.content)["items"]] == [HOSTILE, HOSTILE]


def test_markdown_comes_as_safe_html_beside_its_plain_text_and_plain_text_without(visitor: Visitor) -> None:
    visitor.say("one")
    answer(ReplyBody(text="plain **text**"))
    for body in Web().split(ReplyBody(markdown=f"**{HOSTILE}** [x](javascript:alert(1)) [y](https://e.org)")):
        answer(body)
    plain, shown = visitor.poll().json()["items"][1:]
    assert "html" not in plain
    assert "y (https://e.org)" in shown["text"]
    assert re.findall("<[^>]*>", shown["html"]) == [
        "<b>", "</b>", '<a href="https://e.org" target="_blank" rel="noopener noreferrer">', "</a>"
    ]  # fmt: skip


ADDRESSES = [
    ("https://cdn.example/a.png", True),
    ("http://cdn.example/a.png", True),
    ("javascript:alert(1)", False),
    ("JAVASCRIPT:alert(1)", False),
    ("data:text/html,x", False),
    ("//cdn.example/a.png", False),
    (" javascript:alert(1)", False),
    ("http://[", False),  # what no URL parser takes must not end the page's polls
    ("http://", False),
    ("https://[::1", False),
]


def test_only_http_addresses_reach_the_browser(visitor: Visitor, subtests: pytest.Subtests) -> None:
    visitor.say("one")
    for url, shown in ADDRESSES:
        answer(ReplyBody(media=Attachment(kind="image", url=url, file_id="internal")))
        with subtests.test(url=url):
            media = visitor.poll().json()["items"][-1]["media"]
            assert media == ({"kind": "image", "url": url} if shown else {"kind": "image"})


def _config(visitor: Visitor) -> Any:
    return registry.channel_by_public_id("web", visitor.base.removeprefix("/web/"))
