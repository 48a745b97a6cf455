"""A bot in another process: the turn goes out signed, its answer comes back checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug import Request, Response

from channels_ingest.adapters.generic import signed_headers
from channels_ingest.formats.signatures import verify_webhook
from channels_ingest.formats.strict_json import Unreadable
from channels_ingest.http_bots.protocol import MAX_LATE_BYTES, BotFailed, ask, read_answer, read_late, verify
from conversations.contracts import ChannelConfig, ReplyBody
from conversations.storing import late_replies
from tests.kit import fixtures
from tests.kit.fixtures import CREDENTIALS, incoming

TURN = {"id": "turn-7", "message": {"text": "hello"}, "state": {}}


def channel(url: str, **credentials: str) -> ChannelConfig:
    return fixtures.channel("generic", credentials=credentials or CREDENTIALS, bot_url=url)


def test_a_turn_is_posted_signed_with_its_id_and_answered(httpserver: Any) -> None:
    def bot(request: Request) -> Response:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        assert verify_webhook([CREDENTIALS["secret"]], *(request.headers[name] for name in names), request.data)
        assert request.headers["webhook-id"] == "turn-7"
        assert json.loads(request.data) == {"type": "turn", "data": TURN}
        return Response(json.dumps({"replies": [{"text": "hi"}], "state": {"n": 1}}))

    httpserver.expect_request("/turn").respond_with_handler(bot)
    words = {"text": "hi", "markdown": "", "choices": [], "attachments": []}
    assert ask(channel(httpserver.url_for("/turn")), TURN) == {"replies": [words], "state": {"n": 1}}


def test_a_reply_in_markdown_is_taken_now_and_later_and_never_beside_text() -> None:
    data = {"turn": "turn_1", "key": "k", "markdown": "**hi**"}
    (reply,) = read_answer(json.dumps({"replies": [{"markdown": "**hi**"}]}).encode())["replies"]
    assert (reply["text"], reply["markdown"]) == ("", "**hi**")
    late = read_late(channel(""), json.dumps({"type": "reply", "data": data}).encode())
    assert late.bodies == (ReplyBody(markdown="**hi**"),)
    with pytest.raises(BotFailed, match="text and markdown"):
        read_answer(json.dumps({"replies": [{"text": "hi", "markdown": "**hi**"}]}).encode())
    with pytest.raises(Unreadable, match="text and markdown"):
        read_late(channel(""), json.dumps({"type": "reply", "data": {**data, "text": "hi"}}).encode())


def test_an_empty_answer_says_nothing(httpserver: Any) -> None:
    httpserver.expect_request("/turn").respond_with_data("", status=204)
    assert ask(channel(httpserver.url_for("/turn")), TURN) == {"replies": []}


@pytest.mark.parametrize(("status", "body"), [
    (500, ""), (302, ""), (200, "{"), (200, '{"replies":NaN}'), (200, "[]"), (200, " " * 1_100_000),
])  # fmt: skip
def test_anything_else_is_a_failed_turn(httpserver: Any, status: int, body: str) -> None:
    httpserver.expect_request("/turn").respond_with_data(body, status=status)
    with pytest.raises(BotFailed):
        ask(channel(httpserver.url_for("/turn")), TURN)


def test_a_bot_that_is_not_set_up_or_not_there_says_so(settings: Any) -> None:
    for ours in (channel(""), channel("http://127.0.0.1:1/x"), channel("http://127.0.0.1:1/x", token="1")):
        with pytest.raises(BotFailed):
            ask(ours, TURN)
    settings.ALLOW_PRIVATE_OUTBOUND = False
    with pytest.raises(BotFailed, match="plain http is refused"):
        ask(channel("http://127.0.0.1:1/x"), TURN)


def test_a_late_reply_is_bounded_in_bytes_and_in_parts() -> None:
    data = {"turn": "turn_1", "key": "k", "text": ""}
    data["text"] = "." * (MAX_LATE_BYTES - len(json.dumps({"type": "reply", "data": data})))
    late = read_late(channel(""), json.dumps({"type": "reply", "data": data}).encode())
    with pytest.raises(Unreadable, match="more than"):
        read_late(channel(""), json.dumps({"type": "reply", "data": {**data, "text": data["text"] + "."}}).encode())
    parts = (late.bodies[0], *[ReplyBody(text="x")] * late_replies.MAX_PARTS)
    assert "parts" in late_replies.store(channel(""), late_replies.LateReply(turn=1, key="k", bodies=parts))


OF_BOT = "whsec_" + "Qk9U" * 8


def test_a_bot_secret_of_its_own_signs_turns_and_late_replies_and_the_channels_secret_does_not(httpserver: Any) -> None:
    def bot(request: Request) -> Response:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        assert verify_webhook([OF_BOT], *(request.headers[name] for name in names), request.data)
        return Response("{}")

    httpserver.expect_request("/turn").respond_with_handler(bot)
    ours = channel(httpserver.url_for("/turn"), **CREDENTIALS, bot_secret=OF_BOT)
    assert ask(ours, TURN) == {"replies": []}
    for secret, is_right in ((OF_BOT, True), (CREDENTIALS["secret"], False)):
        assert verify(ours, incoming(b"{}", **signed_headers(secret, "1", b"{}"))) is is_right
    assert verify(channel(""), incoming(b"{}", **signed_headers(CREDENTIALS["secret"], "1", b"{}"))), "it falls back"


@pytest.mark.parametrize("kind", ["message.created", "turn", "", None])
def test_what_is_not_of_type_reply_is_no_late_reply(kind: str | None) -> None:
    data = {"turn": "turn_1", "key": "k", "text": "words"}
    assert read_late(channel(""), json.dumps({"type": "reply", "data": data}).encode()).key == "k"
    with pytest.raises(Unreadable, match="type"):
        read_late(channel(""), json.dumps({"type": kind, "data": data}).encode())
