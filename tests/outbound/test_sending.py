"""What a send ends in, held against a real HTTP server that misbehaves on request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.telegram.adapter import Telegram
from channels_ingest.formats.signatures import verify_webhook
from channels_ingest.outbound import http
from conversations.contracts import (
    FOREVER,
    Attachment,
    ChannelConfig,
    Choice,
    Deferred,
    Failed,
    Invoice,
    OutboundReply,
    Rejected,
    ReplyBody,
    Scope,
    Sent,
    Unknown,
)
from conversations.errors import BadOutput
from tests.kit.doubles import Double
from tests.kit.stack import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as running:
        yield running


def channel(platform: str, api_base: str, **credentials: str) -> ChannelConfig:
    known = {"token": "4242:ABC", "secret": SECRET, **credentials}
    return ChannelConfig(id=1, public_id="p", platform=platform, tenant_id=1, credentials=known, api_base=api_base)


def reply(chat: str = "42", address: dict[str, Any] | None = None, answers: str = "", **body: Any) -> OutboundReply:
    body = body or {"text": "hello"}
    return OutboundReply(key="5b2f", chat=chat, user="42", address=address or {}, body=ReplyBody(**body), sequence=3,
                         in_answer_to=answers)  # fmt: skip


# ---------------------------------------------------------------- Telegram

BLOCKED = Rejected(reason="403 Forbidden: bot was blocked by the user", scope=Scope.CONVERSATION)
TELEGRAM_ENDINGS = [
    ({"do": "ok"}, Sent(platform_id="1001")),
    (
        {"do": "429", "retry_after": 7},
        Deferred(seconds=7, bucket="chat", reason="429 Too Many Requests: retry after 1"),
    ),
    ({"do": "403"}, BLOCKED),
    ({"do": "deactivated"}, Rejected(reason="403 Forbidden: user is deactivated", scope=Scope.CONVERSATION)),
    ({"do": "chat_not_found"}, Rejected(reason="400 Bad Request: chat not found", scope=Scope.CONVERSATION)),
    ({"do": "400"}, Rejected(reason="400 Bad Request: message is too long", scope=Scope.REPLY)),
    ({"do": "401"}, Rejected(reason="401 Unauthorized", scope=Scope.CHANNEL)),
    ({"do": "404"}, Rejected(reason="404 Not Found", scope=Scope.CHANNEL)),
    ({"do": "500"}, Unknown(reason="HTTP 500")),
    ({"do": "502"}, Unknown(reason="HTTP 502")),
    ({"do": "accept_then_reset"}, Unknown(reason="no answer: ProtocolError")),
    ({"do": "accept_then_cut"}, Unknown(reason="an answer that is not Telegram's")),
    ({"do": "accept_then_nonsense"}, Unknown(reason="an answer that is not Telegram's")),
    ({"do": "flood"}, Unknown(reason="an answer that is not Telegram's")),
]


@pytest.mark.parametrize(("rule", "ending"), TELEGRAM_ENDINGS, ids=lambda value: str(getattr(value, "get", repr)("do")))
def test_each_answer_of_telegram_has_its_ending(double: Double, rule: dict[str, Any], ending: Any) -> None:
    double.script(rule)
    assert Telegram().send(channel("telegram", double.url), reply()) == ending


def test_a_chat_with_a_new_id_is_named_and_the_address_leads_there(double: Double) -> None:
    double.script({"do": "upgraded", "migrate_to_chat_id": -1005})
    ours = channel("telegram", double.url)
    ending = Telegram().send(ours, reply(chat="-5", address={"chat": "-5"}))
    assert isinstance(ending, Rejected)
    assert (ending.scope, ending.new_chat) == (Scope.REPLY, "-1005")
    assert isinstance(Telegram().send(ours, reply(chat="-5", address={"chat": ending.new_chat})), Sent)
    assert [call["chat"] for call in double.calls()] == ["-5", "-1005"]


def test_429_of_a_group_makes_the_group_wait(double: Double) -> None:
    double.script({"do": "429", "retry_after": 30})
    ending = Telegram().send(channel("telegram", double.url), reply(chat="-100"))
    assert isinstance(ending, Deferred)
    assert (ending.bucket, ending.seconds) == ("group", 30)


@pytest.mark.parametrize("adapter", [Telegram(), Generic()])
def test_a_refused_connection_is_a_failure_not_an_unknown_outcome(adapter: Any) -> None:
    closed = channel(adapter.platform, f"http://127.0.0.1:{free_port()}")
    assert adapter.send(closed, reply()) == Failed(reason="no connection: ConnectionRefusedError")


def test_a_name_that_does_not_resolve_is_surely_not_taken() -> None:
    ending = Telegram().send(channel("telegram", "http://does-not-exist.invalid"), reply())
    assert ending == Failed(reason="no connection: gaierror")


def test_a_platform_that_hangs_is_unknown_after_a_timeout(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(Telegram, "read_timeout_seconds", 0.3)
    double.script({"do": "hang", "seconds": 20})
    assert Telegram().send(channel("telegram", double.url), reply()) == Unknown(reason="no answer: TimeoutError")


def test_a_body_of_one_byte_a_second_ends_at_the_deadline(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(Telegram, "read_timeout_seconds", 1.5)
    double.script({"do": "drip", "seconds": 5})
    ending = Telegram().send(channel("telegram", double.url), reply())
    assert ending == Unknown(reason="an answer that is not Telegram's")


def test_a_reused_connection_that_the_platform_closed_is_opened_again(double: Double) -> None:
    telegram, ours = Telegram(), channel("telegram", double.url)
    double.script({"do": "ok"}, {"do": "accept_then_cut"})
    endings = [telegram.send(ours, reply()) for _ in range(3)]
    assert [type(ending) for ending in endings] == [Sent, Unknown, Sent]


KEYBOARD = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}], [{"text": "No", "callback_data": "n"}]]}
TELEGRAM_BODIES = [
    (reply(), "sendMessage", {"chat_id": 42, "text": "hello"}),
    (
        reply(text="?", choices=(Choice(id="y", title="Yes"), Choice(id="n", title="No"))),
        "sendMessage",
        {"chat_id": 42, "text": "?", "reply_markup": KEYBOARD},
    ),
    (
        reply(text="see", media=Attachment(kind="image", file_id="AgAC")),
        "sendPhoto",
        {"chat_id": 42, "photo": "AgAC", "caption": "see"},
    ),
    (
        reply(media=Attachment(kind="file", url="https://e.org/a.pdf")),
        "sendDocument",
        {"chat_id": 42, "document": "https://e.org/a.pdf"},
    ),
    (
        reply(media=Attachment(kind="location", latitude=1.5, longitude=2.5)),
        "sendLocation",
        {"chat_id": 42, "latitude": 1.5, "longitude": 2.5},
    ),
    (
        reply(media=Attachment(kind="contact", phone="+491", name="Ada")),
        "sendContact",
        {"chat_id": 42, "phone_number": "+491", "first_name": "Ada"},
    ),
    (
        reply(chat="-7", address={"chat": "-7", "thread": 9}, answers="41"),
        "sendMessage",
        {
            "chat_id": -7,
            "text": "hello",
            "message_thread_id": 9,
            "reply_parameters": {"message_id": 41, "allow_sending_without_reply": True},
        },
    ),
    (
        reply(chat="-7", address={"direct_topic": 7001}),
        "sendMessage",
        {"chat_id": -7, "text": "hello", "direct_messages_topic_id": 7001},
    ),
    (
        reply(chat="-7", answers="0.12.9999999999"),
        "sendMessage",
        {"chat_id": -7, "text": "hello", "receiver_user_id": 42, "reply_parameters": {"ephemeral_message_id": 12}},
    ),
    (
        reply(chat="-7", answers="0.12.1790000611"),  # sent over 15 seconds ago
        "sendMessage",
        {"chat_id": -7, "text": "hello", "receiver_user_id": 42},
    ),
    (
        reply(chat="-7", answers="0.880000115"),  # scheduled by the server: nothing to quote
        "sendMessage",
        {"chat_id": -7, "text": "hello"},
    ),
    (
        reply(chat="42@biz", address={"business_connection_id": "biz"}),
        "sendMessage",
        {"chat_id": 42, "text": "hello", "business_connection_id": "biz"},
    ),
    (
        reply(chat="-7@guest", address={"guest_query_id": "q1"}),
        "answerGuestQuery",
        {
            "guest_query_id": "q1",
            "result": {
                "type": "article",
                "id": "1",
                "title": "hello",
                "input_message_content": {"message_text": "hello"},
            },
        },
    ),
    (
        reply(text="🙂 a (https://e.org)", markdown="🙂 **[a](https://e.org)**"),
        "sendMessage",
        {
            "chat_id": 42,
            "text": "🙂 a",
            "entities": [
                {"type": "text_link", "offset": 3, "length": 1, "url": "https://e.org"},
                {"type": "bold", "offset": 3, "length": 1},
            ],
        },
    ),
    (
        reply(text="a", markdown="_a_", media=Attachment(kind="image", file_id="f")),
        "sendPhoto",
        {
            "chat_id": 42,
            "photo": "f",
            "caption": "a",
            "caption_entities": [{"type": "italic", "offset": 0, "length": 1}],
        },
    ),
    (
        reply(chat="-7@guest", address={"guest_query_id": "q1"}, text="a", markdown="`a`"),
        "answerGuestQuery",
        {
            "guest_query_id": "q1",
            "result": {
                "type": "article",
                "id": "1",
                "title": "a",
                "input_message_content": {
                    "message_text": "a",
                    "entities": [{"type": "code", "offset": 0, "length": 1}],
                },
            },
        },
    ),
]


@pytest.mark.parametrize(
    ("out", "method", "body"), TELEGRAM_BODIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_reply_becomes_its_method(double: Double, out: OutboundReply, method: str, body: dict[str, Any]) -> None:
    Telegram().send(channel("telegram", double.url), out)
    (call,) = double.calls()
    assert (call["method"], call["body"], call["token"]) == (method, body, "4242:ABC")


def test_media_without_a_source_is_refused_before_any_call(double: Double) -> None:
    ending = Telegram().send(channel("telegram", double.url), reply(media=Attachment(kind="image")))
    assert ending == Rejected(reason="media has neither file id nor URL")
    assert double.calls() == []


def test_what_only_one_person_may_see_is_not_said_to_a_group_that_shares_a_lane(double: Double) -> None:
    out = msgspec.structs.replace(reply(chat="-7", answers="0.12.1790000611"), user="")
    assert isinstance(Telegram().send(channel("telegram", double.url), out), Rejected)
    assert double.calls() == []


def test_a_choice_with_a_long_id_travels_as_a_digest_that_its_reply_explains(double: Double) -> None:
    choice = Choice(id="order:" + "7" * 80, title="Seven")
    Telegram().send(channel("telegram", double.url), reply(text="?", choices=(choice,)))
    data = double.calls()[0]["body"]["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
    assert len(data.encode()) <= 64
    assert data == choice.short(Telegram.forms[0].value_bytes) != choice.id


def test_acknowledging_a_button_stops_its_spinner_and_may_fail(double: Double) -> None:
    double.script({"do": "ok"}, {"do": "400", "description": "Bad Request: query is too old"})
    ours = channel("telegram", double.url)
    for _ in range(2):
        Telegram().acknowledge(ours, {"callback_query_id": "cb1"})
    Telegram().acknowledge(channel("telegram", f"http://127.0.0.1:{free_port()}"), {"callback_query_id": "cb1"})
    Telegram().acknowledge(ours, {})
    assert [call["body"] for call in double.calls("answerCallbackQuery")] == [{"callback_query_id": "cb1"}] * 2


TEA = Invoice(title="Tea", description="A box", payload="order-7", currency="EUR", prices=(("Tea", 1990), ("Off", -90)))
STARS = msgspec.structs.replace(TEA, currency="XTR", prices=(("Tea", 50),))
SHOP: dict[str, Any] = {"title": "Tea", "description": "A box", "payload": "order-7"}


def test_an_invoice_is_sent_with_the_channels_provider_or_in_stars_without(double: Double) -> None:
    ours = channel("telegram", double.url, provider_token="prov")
    for invoice in (TEA, msgspec.structs.replace(STARS, photo_url="https://e.org/t.png")):
        body = ReplyBody(text=invoice.words, invoice=invoice)
        assert Telegram().split(body) == [body]
        ending = Telegram().send(ours, reply(chat="-7", answers="41", text=invoice.words, invoice=invoice))
        assert isinstance(ending, Sent)
    euros, stars = (call["body"] for call in double.calls("sendInvoice"))
    quoted = {"message_id": 41, "allow_sending_without_reply": True}
    prices = [{"label": "Tea", "amount": 1990}, {"label": "Off", "amount": -90}]
    assert euros == {"chat_id": -7, **SHOP, "provider_token": "prov", "currency": "EUR", "prices": prices,
                     "reply_parameters": quoted}  # fmt: skip
    assert stars == {"chat_id": -7, **SHOP, "provider_token": "", "currency": "XTR", "photo_url": "https://e.org/t.png",
                     "prices": [{"label": "Tea", "amount": 50}], "reply_parameters": quoted}  # fmt: skip


@pytest.mark.parametrize(
    ("invoice", "address"),
    [(TEA, {}), (STARS, {"business_connection_id": "biz"}), (STARS, {"guest_query_id": "q1"})],
    ids=["no provider", "business", "guest"],
)
def test_an_invoice_that_nobody_could_pay_is_not_sent(double: Double, invoice: Invoice, address: Any) -> None:
    ending = Telegram().send(channel("telegram", double.url), reply(address=address, text="x", invoice=invoice))
    assert isinstance(ending, Rejected)
    assert double.calls() == []


@pytest.mark.parametrize("wrong", [
    {"title": ""},
    {"title": "x" * 33},
    {"description": "x" * 256},
    {"payload": "ä" * 65},
    {"payload": ""},
    {"currency": "eur"},
    {"currency": "EURO"},
    {"prices": ()},
    {"prices": (("Tea", 100), ("Off", -100))},
    {"currency": "XTR"},  # with two prices
], ids=str)  # fmt: skip
def test_an_invoice_that_telegram_would_refuse_fails_its_turn(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOutput):
        Telegram().split(ReplyBody(invoice=msgspec.structs.replace(TEA, **wrong)))


def test_a_platform_without_invoices_says_so() -> None:
    with pytest.raises(BadOutput, match="generic has no invoices"):
        Generic().split(ReplyBody(invoice=TEA))


def test_a_checkout_is_answered_and_once_more_after_a_broken_connection(double: Double) -> None:
    double.script({"do": "ok"}, {"do": "accept_then_reset"}, {"do": "ok"}, {"do": "400"})
    ours, query = channel("telegram", double.url), {"pre_checkout_query_id": "pq1"}
    assert [Telegram().answer_checkout(ours, query, words) for words in ("", "Sold out.", "")] == [True, True, False]
    refused = {"pre_checkout_query_id": "pq1", "ok": False, "error_message": "Sold out."}
    accepted = {"pre_checkout_query_id": "pq1", "ok": True}
    assert [call["body"] for call in double.calls("answerPreCheckoutQuery")] == [accepted, refused, refused, accepted]


def test_typing_is_shown_where_the_reply_goes_and_may_fail(double: Double) -> None:
    double.script({"do": "ok"}, {"do": "429", "retry_after": 9})
    ours, address = channel("telegram", double.url), {"chat": "-7", "thread": 9, "business_connection_id": "biz"}
    assert [Telegram().show_typing(ours, address, "41") for _ in range(2)] == [5.0, 0.0]
    gone = channel("telegram", f"http://127.0.0.1:{free_port()}")
    assert Telegram().show_typing(gone, address, "41") == 0.0
    assert Telegram().show_typing(ours, {"chat": "-7", "guest_query_id": "q1"}, "41") == 0.0
    action = {"chat_id": "-7", "message_thread_id": 9, "business_connection_id": "biz", "action": "typing"}
    assert [call["body"] for call in double.calls("sendChatAction")] == [action] * 2


# ---------------------------------------------------------------- generic

GENERIC_ENDINGS = [
    ({"do": "ok"}, Sent(platform_id="5b2f")),
    ({"do": "accept_then_cut"}, Sent(platform_id="5b2f")),
    ({"do": "410"}, Rejected(reason="HTTP 410", scope=Scope.CHANNEL)),
    ({"do": "401"}, Rejected(reason="HTTP 401", scope=Scope.CHANNEL)),
    ({"do": "403"}, Rejected(reason="HTTP 403", scope=Scope.CHANNEL)),
    ({"do": "404"}, Rejected(reason="HTTP 404", scope=Scope.CHANNEL)),
    ({"do": "redirect"}, Rejected(reason="HTTP 302", scope=Scope.CHANNEL)),
    ({"do": "400"}, Rejected(reason="HTTP 400", scope=Scope.REPLY)),
    ({"do": "429", "retry_after": 2}, Deferred(seconds=2, reason="HTTP 429")),
    ({"do": "429"}, Deferred(seconds=http.RETRY_AFTER_SECONDS, reason="HTTP 429")),
    ({"do": "503", "retry_after": 3}, Deferred(seconds=3, reason="HTTP 503")),
    ({"do": "503"}, Unknown(reason="HTTP 503")),
    ({"do": "500"}, Unknown(reason="HTTP 500")),
    ({"do": "accept_then_reset"}, Unknown(reason="no answer: ProtocolError")),
]


@pytest.mark.parametrize(("rule", "ending"), GENERIC_ENDINGS, ids=lambda value: str(getattr(value, "get", repr)("do")))
def test_each_answer_of_a_receiver_has_its_ending(double: Double, rule: dict[str, Any], ending: Any) -> None:
    double.script(rule)
    assert Generic().send(channel("generic", "", outbound_url=double.url + "/in"), reply()) == ending


def test_markdown_is_plain_text_for_a_receiver(double: Double) -> None:
    ours = channel("generic", "", outbound_url=double.url + "/in")
    (body,) = Generic().split(ReplyBody(markdown="**a** [b](https://e.org)"))
    Generic().send(ours, reply(**{name: getattr(body, name) for name in ("text", "markdown")}))
    data = double.calls()[0]["body"]["data"]
    assert data["text"] == "a b (https://e.org)"
    assert "markdown" not in data


def test_a_generic_reply_is_signed_and_repeats_its_key(double: Double) -> None:
    ours = channel("generic", "", outbound_url=double.url + "/in")
    choices = (Choice(id="y", title="Yes"),)
    for _ in range(2):
        Generic().send(ours, reply(text="hi", choices=choices, media=Attachment(kind="image", url="https://e.org/i")))
    first, second = double.calls()
    assert (first["key"], second["key"], second["repeat"]) == ("5b2f", "5b2f", True)
    data = first["body"]["data"]
    assert data["outbound_id"] == "5b2f"
    assert (data["chat"], data["user"], data["sequence"], data["text"]) == ({"id": "42"}, {"id": "42"}, 3, "hi")
    assert data["choices"] == [{"id": "y", "title": "Yes"}]
    assert data["attachments"] == [{"kind": "image", "url": "https://e.org/i"}]


def test_a_receiver_can_verify_what_we_send(httpserver: Any) -> None:
    httpserver.expect_request("/in").respond_with_data("")
    Generic().send(channel("generic", "", outbound_url=httpserver.url_for("/in")), reply())
    sent = httpserver.log[0][0]
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    assert verify_webhook([SECRET], *(sent.headers[name] for name in names), sent.data)


def test_without_a_place_to_send_to_the_channel_says_so() -> None:
    ending = Generic().send(channel("generic", ""), reply())
    assert ending == Rejected(reason="the channel has no outbound_url or no secret", scope=Scope.CHANNEL)


def test_a_receiver_remembers_keys_for_ever_unless_told_otherwise() -> None:
    ours = channel("generic", "")
    assert Generic().key_life(ours) == FOREVER
    forgets = ChannelConfig(id=1, public_id="", platform="generic", tenant_id=1, options={"key_life_s": 60})
    assert Generic().key_life(forgets) == 60
    assert Telegram().key_life(ours) == 0
