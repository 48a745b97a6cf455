"""How Meta lists templates, read from answers in the form of Meta's page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels_ingest.adapters.base import NotListed
from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.meta.whatsapp_templates import read_page
from conversations.contracts import ChannelConfig
from conversations.template_shapes import ListedTemplate, TemplateButton, TemplateShape
from tests.kit.fixtures import channel

ROOM = {"header_room": 60, "body_room": 1024}
BODY = {"type": "BODY", "text": "Hi {{1}}", "example": {"body_text": [["Ada"]]}}


def item(*components: Any, **more: Any) -> dict[str, Any]:
    base = {"id": "1", "name": "t", "language": "de", "status": "APPROVED", "category": "UTILITY"}
    return {**base, "components": list(components), **more}


def buttons(*each: dict[str, Any]) -> dict[str, Any]:
    return {"type": "BUTTONS", "buttons": list(each)}


SHAPES: list[tuple[list[Any], TemplateShape]] = [
    ([BODY], TemplateShape(body="Hi {{1}}", header_room=60, body_room=32768)),
    (
        [{"type": "HEADER", "format": "TEXT", "text": "To {{city}}"}, {"type": "BODY", "text": "Hi {{name}}"},
         {"type": "FOOTER", "text": "Bye"}],
        TemplateShape(header="To {{city}}", body="Hi {{name}}", footer="Bye", named=True, **ROOM),
    ),
    (
        [{"type": "HEADER", "format": "DOCUMENT", "example": {"header_handle": ["https://x"]}}, BODY],
        TemplateShape(media="file", body="Hi {{1}}", **ROOM),
    ),
    (
        [BODY, buttons(
            {"type": "QUICK_REPLY", "text": "Yes"},
            {"type": "URL", "text": "Shop", "url": "https://shop.example"},
            {"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}", "example": ["https://x"]},
            {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+49301"},
            {"type": "COPY_CODE", "example": ["SAVE"]},
            {"type": "FLOW", "text": "Book", "flow_id": 1},
        )],
        TemplateShape(body="Hi {{1}}", **ROOM, buttons=(
            TemplateButton(kind="quick_reply", text="Yes", takes=True, room=200),
            TemplateButton(kind="url", text="Shop", leads="https://shop.example"),
            TemplateButton(kind="url", text="Track", leads="https://shop.example/{{1}}", takes=True, must=True,
                           room=2000),
            TemplateButton(kind="phone_number", text="Call", leads="+49301"),
            TemplateButton(kind="copy_code", takes=True, must=True, room=15),
            TemplateButton(kind="flow", text="Book", takes=True, must=True, room=200),
        )),
    ),
    (
        [BODY, {"type": "CAROUSEL", "cards": []}, {"type": "HEADER", "format": "GIF"}, buttons({"type": "MPM"})],
        TemplateShape(body="Hi {{1}}", **ROOM, buttons=(TemplateButton(kind="mpm"),),
                      odd="a part carousel, a header gif, a button mpm"),
    ),
    (
        [{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "{{header}}"}],
        TemplateShape(media="image", body="{{header}}", named=True, **ROOM,
                      odd="a variable named header below another header"),
    ),
    ([{"type": "body", "text": "Hi"}], TemplateShape(body="Hi", header_room=60, body_room=32768)),
]  # fmt: skip


@pytest.mark.parametrize(("components", "shape"), SHAPES)
def test_each_part_of_a_template_is_read_or_named_as_unfillable(components: list[Any], shape: TemplateShape) -> None:
    ((listed,), after) = read_page({"data": [item(*components, quality_score={"score": "GREEN", "date": 1})]})
    assert after == ""
    assert listed == ListedTemplate(name="t", language="de", status="approved", category="utility", quality="green",
                                    shape=shape)  # fmt: skip


TOKEN = {"access_token": "EAAtoken"}


def config(server: Any, **options: str) -> ChannelConfig:
    return channel("whatsapp", api_base=server.url_for("").rstrip("/"), credentials=TOKEN, **options)


def test_pages_are_followed_by_their_cursor_with_the_token(httpserver: Any) -> None:
    pages = [("", "a", ["one", "two"]), ("a", "b", ["three"]), ("b", "", [])]
    for cursor, after, found in pages:
        paging = {"cursors": {"after": after or "x"}, **({"next": "https://graph.example/"} if after else {})}
        query = {"limit": "50", "fields": "name,language,status,category,components,quality_score"}
        httpserver.expect_request(
            "/v26.0/777000/message_templates", "GET", headers={"Authorization": "Bearer EAAtoken"},
            query_string={**query, **({"after": cursor} if cursor else {})},
        ).respond_with_json({"data": [item(BODY, name=name) for name in found], "paging": paging})  # fmt: skip
    listed = WhatsApp().list_templates(config(httpserver, waba_id="777000"))
    assert [[each.name for each in page] for page in listed] == [["one", "two"], ["three"], []]


FAULTS = [
    ({"error": {"code": 190, "message": "Expired"}}, 401, "message_templates: 190 the access token has expired"),
    ({"error": {"code": 80007}}, 400, "80007 the account calls too often"),
    ("<html>", 502, "message_templates: HTTP 502"),
    ({"data": {}}, 200, "a list that cannot be read: data is not a list of objects"),
    ({"data": [{"name": "t"}]}, 200, "a list that cannot be read: language is missing"),
    ({"error": "odd"}, 200, "a list that cannot be read: data is missing"),
]


@pytest.mark.parametrize(("answer", "status", "words"), FAULTS)
def test_a_list_that_is_not_had_says_why(httpserver: Any, answer: Any, status: int, words: str) -> None:
    body = answer if isinstance(answer, str) else json.dumps(answer)
    httpserver.expect_request("/v26.0/777000/message_templates").respond_with_data(body, status)
    with pytest.raises(NotListed, match=words):
        list(WhatsApp().list_templates(config(httpserver, waba_id="777000")))


def test_a_list_without_an_end_or_an_account_is_refused(httpserver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels_ingest.adapters.meta.whatsapp.PAGES", 3)
    endless = {"data": [], "paging": {"cursors": {"after": "a"}, "next": "https://graph.example/"}}
    httpserver.expect_request("/v26.0/777000/message_templates").respond_with_json(endless)
    for ours, words in ((config(httpserver, waba_id="777000"), "more than 3 pages"), (config(httpserver), "waba_id")):
        with pytest.raises(NotListed, match=words):
            list(WhatsApp().list_templates(ours))
    with pytest.raises(NotListed, match="generic has no templates"):
        list(Generic().list_templates(channel("generic")))
