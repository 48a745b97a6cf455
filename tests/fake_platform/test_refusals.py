"""The double refuses what the platforms refuse, with their own errors, and accepts what we send."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from jsonschema import ValidationError

from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.meta.whatsapp_messages import message
from channels_ingest.adapters.telegram.adapter import Telegram
from channels_ingest.fake_platform.world import Account, File, World
from conversations.contracts import Attachment, Choice, OutboundReply, ReplyBody, Sent
from conversations.template_shapes import Template, fill, slots
from tests.adapters.test_whatsapp_sending import MESSAGES
from tests.kit.doubles import Double
from tests.kit.fixtures import CREDENTIALS, channel
from tests.kit.meta_schema import validate, validate_message
from tests.kit.platforms import signed_generic
from tests.kit.stack import Channel

HTTP = urllib3.PoolManager(retries=False)
PATHS = {
    "telegram": "/bot4242:TOKEN/{}",
    "whatsapp": "/v26.0/555000111222333/messages",
    "generic": "/out",
}
ACCOUNTS = [
    Account("telegram", "t", "Tea", "4242:TOKEN"),
    Account("whatsapp", "w", "Tea", "EAAfixture", number="555000111222333", owner="777"),
    Account("generic", "g", "Tea", "/out", secret=CREDENTIALS["secret"]),
]
FILE = "900100"


@pytest.fixture(scope="module")
def double() -> Iterator[Double]:
    """All platforms, with one person who wrote just now, and one who wrote yesterday."""
    world = World(ACCOUNTS)
    world.files[FILE] = File(b"...", "image/png")
    for account in ACCOUNTS:
        world.write(account.token, ["42", "4915112345678", "DE.7001"])
        world.write(account.token, ["4915100000000"], ago=25 * 3600)
    with Double(world=world) as running:
        yield running


# ---------------------------------------------------------------- right requests

TO = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": "+4915112345678"}
BUTTON = {"type": "reply", "reply": {"id": "y", "title": "Yes"}}
BUTTONS = {"type": "button", "body": {"text": "?"}, "action": {"buttons": [BUTTON]}}
ROWS = {"rows": [{"id": "a", "title": "Assam"}]}
LIST = {"type": "list", "body": {"text": "?"}, "action": {"button": "Choose", "sections": [ROWS]}}
BODY = {"type": "body", "parameters": [{"type": "text", "text": "Ada"}, {"type": "text", "text": "7"}]}
HEADER = {"type": "header", "parameters": [{"type": "image", "image": {"id": FILE}}]}
NAMED = [{"type": "text", "parameter_name": name, "text": "7"} for name in ("name", "order")]
KEYBOARD = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]}


def template(name: str, language: str, *components: Any) -> dict[str, Any]:
    code = {"code": language, "policy": "deterministic"}
    return {**TO, "type": "template", "template": {"name": name, "language": code, "components": list(components)}}


RIGHT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "message": ("telegram", "sendMessage", {"chat_id": 42, "text": "hi", "reply_markup": KEYBOARD}),
    "photo": ("telegram", "sendPhoto", {"chat_id": 42, "photo": FILE, "caption": "hi"}),
    "place": ("telegram", "sendLocation", {"chat_id": 42, "latitude": 1.5, "longitude": 2.5}),
    "invoice": ("telegram", "sendInvoice", {"chat_id": 42, "title": "Tea", "description": "A pack", "payload": "o7",
                                            "currency": "EUR", "prices": [{"label": "Tea", "amount": 690}]}),
    "action": ("telegram", "sendChatAction", {"chat_id": 42, "action": "typing"}),
    "webhook": ("telegram", "setWebhook", {"url": "https://e.org", "secret_token": "a-B_9"}),
    "text": ("whatsapp", "", {**TO, "type": "text", "text": {"body": "hi"}}),
    "image": ("whatsapp", "", {**TO, "type": "image", "image": {"id": FILE, "caption": "hi"}}),
    "audio": ("whatsapp", "", {**TO, "type": "audio", "audio": {"link": "https://e.org/a.ogg"}}),
    "buttons": ("whatsapp", "", {**TO, "type": "interactive", "interactive": BUTTONS}),
    "list": ("whatsapp", "", {**TO, "type": "interactive", "interactive": LIST}),
    "template": ("whatsapp", "", template("order_shipped", "en_US", HEADER, BODY)),
    "named": ("whatsapp", "", template("order_shipped", "de", {"type": "body", "parameters": NAMED})),
    "reply": ("generic", "", {"type": "message.reply", "data": {"outbound_id": "k1", "sequence": 1, "text": "hi",
                              "user": {"id": "u"}, "chat": {"id": "c"}, "choices": [{"id": "y", "title": "Yes"}]}}),
}  # fmt: skip


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a body with another value at a path; a value of None takes the member away."""
    found: Any = copy.deepcopy(body)
    holder, *steps = found, *path.split(".")
    for step in steps[:-1]:
        holder = holder[int(step) if isinstance(holder, list) else step]
    if value is None:
        del holder[steps[-1]]
    else:
        holder[int(steps[-1]) if isinstance(holder, list) else steps[-1]] = value
    return dict(found)


def post(double: Double, kind: str, path: str = "", value: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    platform, method, body = RIGHT[kind]
    raw = json.dumps(changed(body, path, value) if path else body).encode()
    known = {"whatsapp": {"Authorization": "Bearer EAAfixture"}, "telegram": {}}.get(platform)
    if known is None:
        channel = Channel(id=1, public_id="g", webhook_path="", platform="generic", secrets=CREDENTIALS)
        known = signed_generic(channel, raw, "k1")[1]
    url = headers.pop("url", PATHS[platform].format(method))
    answer = HTTP.request("POST", double.url + url, body=raw, headers={**known, **headers})
    return answer.status, answer.json()


@pytest.mark.parametrize("kind", RIGHT)
def test_what_is_right_is_accepted(double: Double, kind: str) -> None:
    status, answer = post(double, kind)
    assert (status, answer.get("ok", True)) == (200, True)
    platform, _, body = RIGHT[kind]
    if platform == "whatsapp":
        validate_message(body)
        validate("MessageResponsePayload", answer)


# ---------------------------------------------------------------- wrong requests

# What was changed -> Telegram's words.
TELEGRAM: list[tuple[str, str, Any, str]] = [
    ("message", "text", "x" * 4097, "message is too long"),
    ("message", "text", "", "message text is empty"),
    ("message", "text", None, "message text is empty"),
    ("message", "chat_id", None, "chat_id is empty"),
    ("message", "chat_id", 43, "chat not found"),
    ("message", "reply_markup.inline_keyboard.0.0.callback_data", "é" * 33, "BUTTON_DATA_INVALID"),
    ("message", "reply_markup.inline_keyboard.0.0.callback_data", "",
     "text buttons are unallowed in the inline keyboard"),
    ("message", "reply_markup.inline_keyboard.0.0", "Yes", "InlineKeyboardButton must be an Object"),
    ("message", "reply_markup", 5, "object expected as reply markup"),
    ("photo", "caption", "x" * 1025, "message caption is too long"),
    ("photo", "photo", None, "there is no photo in the request"),
    ("photo", "photo", "unknown", "wrong file identifier/HTTP URL specified"),
    ("place", "latitude", None, "latitude is empty"),
    ("invoice", "payload", "x" * 129, "INVOICE_PAYLOAD_INVALID"),
    ("invoice", "prices", [], "there must be at least one price"),
    ("action", "action", "dancing", "wrong parameter action in request"),
    ("webhook", "secret_token", "a b", "secret token contains unallowed characters"),
]  # fmt: skip
# What was changed -> Meta's code, and whether Meta's schema refuses it too.
WHATSAPP: list[tuple[str, str, Any, int, bool]] = [
    ("text", "messaging_product", "telegram", 100, False),
    ("text", "type", "telepathy", 100, False),
    ("text", "to", None, 100, True),
    ("text", "text.body", "x" * 4097, 100, False),
    ("text", "text.body", 5, 100, True),
    ("text", "text", None, 131008, True),
    ("text", "biz_opaque_callback_data", "x" * 513, 100, False),
    ("image", "image.caption", "x" * 1025, 100, False),
    ("image", "image", {}, 100, True),
    ("image", "image.id", "1", 131009, False),
    ("audio", "audio.caption", "hi", 100, False),
    ("buttons", "interactive.action.buttons", [BUTTON] * 4, 131009, True),
    ("buttons", "interactive.action.buttons", [], 131008, True),
    ("buttons", "interactive.action.buttons.0.reply.title", "x" * 21, 131009, True),
    ("buttons", "interactive.action.buttons.0.reply.id", "x" * 257, 131009, True),
    ("buttons", "interactive.body.text", "x" * 1025, 131009, False),
    ("buttons", "interactive.body", None, 131008, False),
    ("buttons", "interactive.type", "carousel", 131009, True),
    ("list", "interactive.action.sections.0.rows", [ROWS["rows"][0]] * 11, 131009, True),
    ("list", "interactive.action.sections", [{"rows": ROWS["rows"] * 6}] * 2, 131009, False),
    ("list", "interactive.action.sections.0.rows.0.title", "x" * 25, 131009, True),
    ("list", "interactive.action.sections.0.rows.0.description", "x" * 73, 131009, True),
    ("list", "interactive.action.sections.0.rows.0.id", "x" * 201, 131009, True),
    ("list", "interactive.action.button", "x" * 21, 131009, True),
    ("list", "interactive.footer", {"text": "x" * 61}, 131009, True),
    ("template", "template", None, 131008, True),
    ("template", "template.language", None, 131008, True),
    ("template", "template.name", "unknown", 132001, False),
    ("template", "template.language.code", "fr", 132001, False),
    ("template", "template.name", "winter_sale", 132015, False),
    ("template", "template.name", "old_news", 132016, False),
    ("template", "template.components", [BODY], 132000, False),
    ("template", "template.components.1.parameters", BODY["parameters"][:1], 132000, False),
    ("template", "template.components.0.parameters.0", {"type": "text", "text": "7"}, 132012, False),
    ("template", "template.components.1.parameters.0.text", "x" * 1025, 132005, False),
    ("template", "template.components.1.parameters.0.text", "two\nlines", 100, False),
    ("named", "template.components.0.parameters.0", {"type": "text", "text": "7"}, 100, False),
]
GENERIC: list[tuple[str, str, Any, int]] = [
    ("reply", "type", "message.created", 400),
    ("reply", "data.chat", None, 400),
    ("reply", "data.attachments", [{"kind": "dance"}], 400),
    ("reply", "data.chat.id", "", 400),
    ("reply", "data.outbound_id", "k2", 400),
    ("reply", "data.choices.0.id", "é" * 101, 400),
    ("reply", "data.choices", [{"id": "y", "title": "Yes"}] * 101, 400),
]


@pytest.mark.parametrize(("kind", "path", "value", "words"), TELEGRAM)
def test_telegram_refuses_in_its_own_words(double: Double, kind: str, path: str, value: Any, words: str) -> None:
    answer = {"ok": False, "error_code": 400, "description": f"Bad Request: {words}"}
    assert post(double, kind, path, value) == (400, answer)


@pytest.mark.parametrize(("kind", "path", "value", "code", "in_schema"), WHATSAPP)
def test_whatsapp_refuses_with_its_own_codes(
    double: Double, kind: str, path: str, value: Any, code: int, in_schema: bool
) -> None:
    before = len(double.shown())
    status, answer = post(double, kind, path, value)
    assert (answer["error"]["code"], len(double.shown())) == (code, before)
    assert status == (404 if code == 132001 else 400)
    body = changed(RIGHT[kind][2], path, value)
    if in_schema:
        with pytest.raises(ValidationError):
            validate_message(body)
    elif body["type"] != "telepathy":
        validate_message(body)


@pytest.mark.parametrize(("kind", "path", "value", "status"), GENERIC)
def test_a_receiver_refuses_a_broken_contract(double: Double, kind: str, path: str, value: Any, status: int) -> None:
    assert post(double, kind, path, value)[0] == status


OTHERS: list[tuple[str, dict[str, str], int, Any]] = [
    ("message", {"url": "/bot4242:OTHER/sendMessage"}, 401, "Unauthorized"),
    ("message", {"url": "/botOTHER/sendMessage"}, 404, "Not Found"),
    ("message", {"url": "/bot4242:TOKEN/sing"}, 404, "Not Found: method not found"),
    ("text", {"Authorization": "Bearer other"}, 401, 190),
    ("text", {"url": "/v26.0/1/messages"}, 400, 100),
    ("reply", {"webhook-signature": "v1,AAAA"}, 401, "401"),
    ("reply", {"webhook-timestamp": str(int(time.time()) - 301)}, 401, "401"),
    ("reply", {"url": "/elsewhere"}, 404, "404"),
]


@pytest.mark.parametrize(("kind", "headers", "status", "said"), OTHERS)
def test_a_wrong_token_path_or_signature_is_refused(
    double: Double, kind: str, headers: dict[str, str], status: int, said: Any
) -> None:
    found, answer = post(double, kind, **headers)
    error = answer.get("error")
    assert (found, answer.get("description") or (error["code"] if isinstance(error, dict) else error)) == (status, said)


# ---------------------------------------------------------------- refused later, dropped, delivered in another order


def test_closed_windows_and_unknown_people_fail_after_a_200(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees the message; a template is seen although the window is closed."""
    events: list[tuple[str, str]] = []
    heard = {"sent", "delivered", "failed"}
    hear = lambda event, call: event in heard and events.append((event, call.get("fails", [""])[0]))  # noqa: E731
    monkeypatch.setattr(double, "watch", hear)
    before = len(double.shown())
    assert [post(double, "text", "to", to)[0] for to in ("+4915100000000", "+4930999999")] == [200, 200]
    assert events == [("failed", "131047"), ("failed", "131026")]
    assert len(double.shown()) == before
    post(double, "template", "to", "+4915100000000")
    assert events[2:] == [("sent", ""), ("delivered", "")]


def test_a_user_id_in_to_is_answered_200_and_reaches_nobody(double: Double) -> None:
    before = len(double.shown())
    assert post(double, "text", "to", "DE.7001")[0] == 200
    assert len(double.shown()) == before
    body = {name: value for name, value in RIGHT["text"][2].items() if name != "to"}
    HTTP.request("POST", double.url + PATHS["whatsapp"], headers={"Authorization": "Bearer EAAfixture"},
                 body=json.dumps({**body, "recipient": "DE.7001"}))  # fmt: skip
    assert [call["chat"] for call in double.shown()[before:]] == ["DE.7001"]


def test_a_text_overtakes_a_picture_that_comes_later() -> None:
    with Double() as double:
        double.script({"do": "later", "method": "image", "seconds": 60})
        for kind in ("image", "text"):
            assert post(double, kind)[0] == 200
        assert [call["method"] for call in double.accepted()] == ["image", "text"]
        assert [call["method"] for call in double.shown()] == ["text"]
        double.release()
        deadline = time.monotonic() + 10
        while len(double.shown()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [call["method"] for call in double.shown()] == ["text", "image"]


# ---------------------------------------------------------------- what we send

CHOICES = tuple(Choice(id=str(number) * 60, title=f"Tea {number}") for number in range(10))
BODIES = [
    ReplyBody(text="x" * 10_000, choices=CHOICES[:3]),
    ReplyBody(text="y" * 5000, choices=CHOICES),
    ReplyBody(text="z" * 2000, media=Attachment(kind="image", url="https://e.org/i.png"), choices=CHOICES[:2]),
    ReplyBody(markdown="**a** _b_ [c](https://e.org) " * 300),
    ReplyBody(media=Attachment(kind="location", latitude=1.5, longitude=2.5, name="Shop")),
    ReplyBody(media=Attachment(kind="contact", phone="+49151", name="Ada")),
    ReplyBody(text="hear", media=Attachment(kind="voice", file_id=FILE)),
    ReplyBody(text="choose", choices=tuple(Choice(id="é" * 100, title=f"{'long ' * 8}{n}") for n in range(12))),
]  # fmt: skip


@pytest.mark.parametrize("adapter", [Telegram(), WhatsApp(), Generic()], ids=lambda each: each.platform)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_no_part_of_a_reply_is_refused(double: Double, adapter: Any, body: ReplyBody) -> None:
    ours = channel(adapter.platform, api_base=double.url + ("/out" if adapter.platform == "generic" else ""))
    address = {"to": "4915112345678"} if adapter.platform == "whatsapp" else {}
    for number, part in enumerate(adapter.split(body)):
        out = OutboundReply(key=f"{id(body)}-{number}", chat="42", user="42", address=address, body=part)
        assert isinstance(adapter.send(ours, out), Sent), double.calls()[-1]["decision"]


@pytest.mark.parametrize("out", [out for _, out, _ in MESSAGES], ids=range(len(MESSAGES)))
def test_each_form_of_a_whatsapp_message_is_accepted(double: Double, out: OutboundReply) -> None:
    raw = json.dumps(message(out, "Choose"))
    answer = HTTP.request("POST", double.url + PATHS["whatsapp"], body=raw,
                          headers={"Authorization": "Bearer EAAfixture"})  # fmt: skip
    assert answer.status == 200, answer.data


def test_each_template_that_the_double_lists_is_accepted_as_we_fill_it(double: Double) -> None:
    ours = channel("whatsapp", api_base=double.url, waba_id="777")
    found: dict[str, list[int]] = {}
    for each in (each for page in WhatsApp().list_templates(ours) for each in page):
        picture = Attachment(kind="image", file_id=FILE)
        values: dict[str, Any] = {name: picture if slot.media else "7" for name, slot in slots(each.shape).items()}
        body = fill(Template(each.name, language=each.language, values=values), each.shape)
        out = OutboundReply(key="k", chat="42", user="42", address={"to": "4915112345678"}, body=body)
        raw = json.dumps(message(out, ""))
        answer = HTTP.request("POST", double.url + PATHS["whatsapp"], body=raw,
                              headers={"Authorization": "Bearer EAAfixture"})  # fmt: skip
        found.setdefault(each.status, []).append(answer.status)
    assert found == {"approved": [200, 200, 200], "paused": [400], "disabled": [400]}


def test_templates_are_on_one_page(double: Double) -> None:
    """Meta names a cursor after the last page too."""
    url = f"{double.url}/v26.0/777/message_templates?limit=100"
    headers = {"Authorization": "Bearer EAAfixture"}
    first = HTTP.request("GET", url, headers=headers).json()
    assert {each["status"] for each in first["data"]} == {"APPROVED", "PAUSED", "DISABLED"}
    after = first["paging"]["cursors"]["after"]
    assert HTTP.request("GET", f"{url}&after={after}", headers=headers).json()["data"] == []


# ---------------------------------------------------------------- files

UPLOADS = [
    ("image/png", 100, 200, 0),
    ("image/gif", 100, 400, 100),
    ("image/jpeg", 5 * 1024 * 1024 + 1, 400, 131053),
    ("image/webp", 500 * 1024 + 1, 400, 131053),
]


@pytest.mark.parametrize(("mime_type", "size", "status", "code"), UPLOADS)
def test_uploads_are_judged_by_type_and_size(double: Double, mime_type: str, size: int, status: int, code: int) -> None:
    fields = {"messaging_product": "whatsapp", "type": mime_type, "file": ("i", b"\x01\r\n" + b"x" * size, mime_type)}
    headers = {"Authorization": "Bearer EAAfixture"}
    answer = HTTP.request("POST", f"{double.url}/v26.0/555000111222333/media", fields=fields, headers=headers)
    assert (answer.status, answer.json().get("error", {}).get("code", 0)) == (status, code)
    if status == 200:
        about = HTTP.request("GET", f"{double.url}/v26.0/{answer.json()['id']}", headers=headers).json()
        read = HTTP.request("GET", about["url"], headers=headers)
        assert (read.data, read.headers["content-type"]) == (b"\x01\r\n" + b"x" * size, mime_type)
        assert about["file_size"] == size + 3


def test_a_file_of_telegram_is_read_by_its_path(double: Double) -> None:
    fields = {"chat_id": "42", "caption": "hi", "photo": ("i.png", base64.b64decode("aGVsbG8="), "image/png")}
    sent = HTTP.request("POST", f"{double.url}/bot4242:TOKEN/sendPhoto", fields=fields)
    assert sent.status == 200, sent.data
    file_id = double.shown("sendPhoto")[-1]["body"]["photo"]
    path = HTTP.request("GET", f"{double.url}/bot4242:TOKEN/getFile?file_id={file_id}").json()["result"]["file_path"]
    assert HTTP.request("GET", f"{double.url}/file/bot4242:TOKEN/{path}").data == b"hello"
