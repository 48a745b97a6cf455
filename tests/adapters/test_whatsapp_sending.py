"""What we send to WhatsApp is what Meta published.

The schemas are Meta's own. Where they contradict themselves or Meta's newer pages,
``meta_schema.corrected`` says how they are read.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from channels_ingest.adapters.base import NotRegistered, Unsendable
from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.meta.whatsapp_messages import as_seen, message
from channels_ingest.adapters.meta.whatsapp_templates import template_object
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Choice,
    FilledTemplate,
    OutboundReply,
    Rejected,
    ReplyBody,
    Scope,
    Sent,
)
from tests.kit.fixtures import channel
from tests.kit.meta_schema import validate, validate_message

TO = {"to": "4915112345678", "recipient": "DE.7001"}


def reply(address: dict[str, Any] | None = None, chat: str = "DE.7001", **body: Any) -> OutboundReply:
    return OutboundReply(key="0f1e", chat=chat, user="DE.7001", address=TO if address is None else address,
                         body=ReplyBody(**body), in_answer_to="wamid.IN1")  # fmt: skip


def choices(count: int, title: str = "Yes", id_: str = "y") -> tuple[Choice, ...]:
    return tuple(Choice(id=f"{id_}{number}", title=f"{title} {number}") for number in range(count))


def file(kind: str, **more: str) -> Attachment:
    return Attachment(kind=kind, **({"file_id": "900100"} | more))  # type: ignore[arg-type]


# ---------------------------------------------------------------- messages

LONG = "Delivery on Thursday between nine and ten"
MESSAGES = [
    ("text", reply(text="hello"), {"text": {"body": "hello", "preview_url": False}}),
    ("image", reply(text="see", media=file("image")), {"image": {"id": "900100", "caption": "see"}}),
    ("image", reply(media=Attachment(kind="image", url="https://e.org/i.png")),
     {"image": {"link": "https://e.org/i.png"}}),
    ("video", reply(media=file("video")), {"video": {"id": "900100"}}),
    ("audio", reply(media=file("audio")), {"audio": {"id": "900100"}}),
    ("audio", reply(media=file("voice")), {"audio": {"id": "900100", "voice": True}}),
    ("sticker", reply(media=file("sticker")), {"sticker": {"id": "900100"}}),
    ("document", reply(text="yours", media=file("file", name="a.pdf")),
     {"document": {"id": "900100", "filename": "a.pdf", "caption": "yours"}}),
    ("location", reply(media=Attachment(kind="location", latitude=1.5, longitude=2.5, name="Office")),
     {"location": {"latitude": "1.5", "longitude": "2.5", "name": "Office"}}),
    ("contacts", reply(media=Attachment(kind="contact", phone="+491", name="Ada")),
     {"contacts": [{"name": {"formatted_name": "Ada", "first_name": "Ada"}, "phones": [{"phone": "+491"}]}]}),
    ("interactive", reply(text="?", choices=choices(2), media=file("image")),
     {"interactive": {"type": "button", "body": {"text": "?"}, "header": {"type": "image", "image": {"id": "900100"}},
                      "action": {"buttons": [{"type": "reply", "reply": {"id": "y0", "title": "Yes 0"}},
                                             {"type": "reply", "reply": {"id": "y1", "title": "Yes 1"}}]}}}),
    ("interactive", reply(choices=(Choice(id="a", title=LONG), Choice(id="b", title=""))),
     {"interactive": {"type": "list", "body": {"text": "…"},
                      "action": {"button": "Choose",
                                 "sections": [{"rows": [{"id": "a", "title": "Delivery on Thursday",
                                                         "description": "between nine and ten"},
                                                        {"id": "b", "title": "b"}]}]}}}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "out", "content"), MESSAGES)
def test_each_reply_is_a_message_as_meta_published_it(kind: str, out: OutboundReply, content: dict[str, Any]) -> None:
    sent = message(out, "Choose")
    assert sent == {"messaging_product": "whatsapp", "recipient_type": "individual", "to": "+4915112345678",
                    "type": kind, **content, "biz_opaque_callback_data": "0f1e"}  # fmt: skip
    validate_message(sent)


RECIPIENTS = [
    (TO, "DE.7001", {"recipient_type": "individual", "to": "+4915112345678"}),
    ({"to": None, "recipient": "DE.7001"}, "DE.7001", {"recipient_type": "individual", "recipient": "DE.7001"}),
    ({"to": "DE.7001"}, "DE.7001", {"recipient_type": "individual", "recipient": "DE.7001"}),
    ({"to": "+4915112345678"}, "x", {"recipient_type": "individual", "to": "+4915112345678"}),
    ({}, "4915112345678", {"recipient_type": "individual", "to": "+4915112345678"}),
    ({}, "DE.7001", {"recipient_type": "individual", "recipient": "DE.7001"}),
    ({"group": "g-55"}, "group:g-55", {"recipient_type": "group", "to": "g-55"}),
    ({}, "group:g-55", {"recipient_type": "group", "to": "g-55"}),
]


@pytest.mark.parametrize(("address", "chat", "wanted"), RECIPIENTS)
def test_a_number_goes_into_to_with_plus_and_a_user_id_never(address: Any, chat: str, wanted: dict[str, str]) -> None:
    sent = message(reply(address, chat, text="hi"), "Choose")
    assert {name: sent[name] for name in ("recipient_type", "to", "recipient") if name in sent} == wanted
    assert ("context" in sent) is (wanted["recipient_type"] == "group")  # in a group the answered message is quoted
    validate("TextMessage", sent)


def test_a_reply_whose_number_is_somebody_elses_goes_to_nobody() -> None:
    with pytest.raises(Unsendable):
        message(reply({"to": None}, "4915112345678", text="hi"), "Choose")


TEMPLATES = [
    (FilledTemplate(name="hello", language="de"), []),
    (FilledTemplate(name="order", language="en_US", media=file("file", name="a.pdf"),
                    body=(("", "7"), ("", "two bags")), buttons=(("quick_reply", 0, "track"), ("url", 1, "7"))),
     [{"type": "header", "parameters": [{"type": "document", "document": {"id": "900100", "filename": "a.pdf"}}]},
      {"type": "body", "parameters": [{"type": "text", "text": "7"}, {"type": "text", "text": "two bags"}]},
      {"type": "button", "sub_type": "quick_reply", "index": "0",
       "parameters": [{"type": "payload", "payload": "track"}]},
      {"type": "button", "sub_type": "url", "index": "1", "parameters": [{"type": "text", "text": "7"}]}]),
    (FilledTemplate(name="trip", language="de", header=(("who", "Ada"),), body=(("city", "Haifa"),)),
     [{"type": "header", "parameters": [{"type": "text", "parameter_name": "who", "text": "Ada"}]},
      {"type": "body", "parameters": [{"type": "text", "parameter_name": "city", "text": "Haifa"}]}]),
]  # fmt: skip


@pytest.mark.parametrize(("template", "components"), TEMPLATES)
def test_a_template_is_filled_as_meta_published_it(template: FilledTemplate, components: list[Any]) -> None:
    (body,) = WhatsApp().split(ReplyBody(text="x" * 5000, template=template))
    sent = message(msgspec.structs.replace(reply(), body=body), "Choose")
    assert (sent["type"], sent["template"].get("components", [])) == ("template", components)
    assert {"text", "interactive"}.isdisjoint(sent)
    validate("TemplateMessage", sent)
    for component in components:
        validate(f"{component['type'].capitalize()}Component", component)


def test_newer_parameters_of_a_template_are_their_own() -> None:
    """The published schema does not know them: Meta's page of each does."""
    place = Attachment(kind="location", latitude=1.5, longitude=2.5, name="Office")
    filled = FilledTemplate(name="n", language="de", media=place, buttons=(("copy_code", 0, "v"), ("flow", 1, "v")))
    found = template_object(filled)["components"]
    assert [each["parameters"] for each in found] == [
        [{"type": "location", "location": {"latitude": "1.5", "longitude": "2.5", "name": "Office"}}],
        [{"type": "coupon_code", "coupon_code": "v"}],
        [{"type": "action", "action": {"flow_token": "v"}}],
    ]


# ---------------------------------------------------------------- split


SPLITS: list[tuple[ReplyBody, list[tuple[int, int, str]]]] = [
    (ReplyBody(text="x" * 4097), [(4096, 0, ""), (1, 0, "")]),
    (ReplyBody(text="x" * 1024, choices=choices(3)), [(1024, 3, "")]),
    (ReplyBody(text="x" * 1025, choices=choices(3)), [(1024, 0, ""), (1, 3, "")]),
    (ReplyBody(text="x" * 1025, choices=choices(4)), [(1025, 4, "")]),
    (ReplyBody(text="x", choices=choices(3), media=file("video")), [(1, 3, "video")]),
    (ReplyBody(text="x", choices=choices(4), media=file("video")), [(0, 0, "video"), (1, 4, "")]),
    (ReplyBody(text="x", choices=choices(2), media=file("voice")), [(0, 0, "voice"), (1, 2, "")]),
    (ReplyBody(text="x", choices=choices(10, "y" * 80)), [(1, 10, "")]),
    (ReplyBody(text="x", media=file("voice")), [(1, 0, ""), (0, 0, "voice")]),
    (ReplyBody(text="x" * 1025, media=file("image")), [(1025, 0, ""), (0, 0, "image")]),
]


@pytest.mark.parametrize(("body", "wanted"), SPLITS)
def test_what_one_message_cannot_hold_goes_ahead(body: ReplyBody, wanted: list[tuple[int, int, str]]) -> None:
    parts = WhatsApp().split(body)
    assert [(len(part.text), len(part.choices), part.media.kind if part.media else "") for part in parts] == wanted
    assert [again for part in parts for again in WhatsApp().split(part)] == parts


# ---------------------------------------------------------------- the calls


def config(server: Any, **options: str) -> ChannelConfig:
    keys = {"access_token": "EAAtoken", "verify_token": "our words"}
    base = server.url_for("").rstrip("/")
    return channel("whatsapp", api_base=base, credentials=keys, phone_number_id="555000", **options)


def test_a_send_goes_to_the_number_with_the_token(httpserver: Any) -> None:
    answer = {"messaging_product": "whatsapp", "contacts": [{"input": "+49"}], "messages": [{"id": "wamid.OUT9"}]}
    validate("MessageResponsePayload", answer)
    token = {"Authorization": "Bearer EAAtoken"}
    httpserver.expect_request("/v26.0/555000/messages", "POST", headers=token).respond_with_json(answer)
    assert WhatsApp().send(config(httpserver), reply(text="hi")) == Sent(platform_id="wamid.OUT9")
    sent = httpserver.log[0][0]
    assert json.loads(sent.data) == message(reply(text="hi"), "Choose")


def test_markdown_is_sent_with_whatsapps_marks(httpserver: Any) -> None:
    httpserver.expect_request("/v26.0/555000/messages", "POST").respond_with_json({"messages": [{"id": "wamid.OUT9"}]})
    (body,) = WhatsApp().split(ReplyBody(markdown="**Bold** and [a link](https://e.org)"))
    WhatsApp().send(config(httpserver), reply(text=body.text, markdown=body.markdown))
    picture = Attachment(kind="image", file_id="f")
    WhatsApp().send(config(httpserver), reply(text="a", markdown="_a_", media=picture))
    text, image = (json.loads(request.data) for request, _ in httpserver.log)
    assert text["text"]["body"] == "*Bold* and a link (https://e.org)"
    assert image["image"]["caption"] == "_a_"


def test_typing_marks_the_message_as_read_and_may_fail(httpserver: Any) -> None:
    for answer, status in (({"success": True}, 200), ({"error": {"code": 131000}}, 500)):
        httpserver.expect_oneshot_request("/v26.0/555000/messages", "POST").respond_with_json(answer, status)
    ours, messages = config(httpserver), ("wamid.IN1", "wamid.IN1", "")
    asked = [WhatsApp().show_typing(ours, TO, each) for each in messages]
    assert asked == [25.0, 0.0, 0.0]
    sent, again = (json.loads(request.data) for request, _ in httpserver.log)
    assert sent == again == as_seen("wamid.IN1")
    validate("MarkMessageRequestPayload", sent)


def test_a_channel_without_number_or_token_says_so() -> None:
    bare = ChannelConfig(id=1, public_id="p", platform="whatsapp", tenant_id=1)
    refused = Rejected(reason="the channel has no phone_number_id or no access_token", scope=Scope.CHANNEL)
    assert WhatsApp().send(bare, reply(text="hi")) == refused


def test_media_without_a_source_is_refused_before_any_call(httpserver: Any) -> None:
    found = WhatsApp().send(config(httpserver), reply(media=Attachment(kind="image")))
    assert (found, httpserver.log) == (Rejected(reason="media has neither file id nor URL"), [])


def test_register_puts_our_url_in_place_of_the_apps(httpserver: Any) -> None:
    answers = httpserver.expect_request("/v26.0/777000/subscribed_apps", "POST")
    answers.respond_with_json({"success": True})
    ours = config(httpserver, waba_id="777000")
    assert WhatsApp().register(ours, "https://bot.example.org/w") == {"webhook": {"success": True}}
    wanted = {"override_callback_uri": "https://bot.example.org/w", "verify_token": "our words"}
    assert json.loads(httpserver.log[0][0].data) == wanted
    answers.respond_with_json({"error": {"code": 190, "message": "expired"}}, 401)
    with pytest.raises(NotRegistered, match="190 the access token has expired or was revoked"):
        WhatsApp().register(ours, "https://bot.example.org/w")
    with pytest.raises(NotRegistered, match="set waba_id first"):
        WhatsApp().register(config(httpserver), "https://bot.example.org/w")
