"""A bot in another process: the turn goes out signed, its answer comes back checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug import Request, Response

from channels_ingest.formats.signatures import verify_webhook
from channels_ingest.formats.strict_json import Unreadable
from channels_ingest.http_bots.protocol import MAX_LATE_BYTES, BotFailed, ask, read_late
from conversations.contracts import ChannelConfig, ReplyBody
from conversations.storing import late_replies
from tests.kit.fixtures import CREDENTIALS

TURN = {"id": "turn-7", "message": {"text": "hello"}, "state": {}}


@pytest.fixture(autouse=True)
def _private(settings: Any) -> None:
    settings.ALLOW_PRIVATE_OUTBOUND = True


def channel(url: str, **credentials: str) -> ChannelConfig:
    return ChannelConfig(
        id=1,
        public_id="p",
        platform="generic",
        tenant_id=1,
        credentials=credentials or CREDENTIALS,
        options={"bot_url": url},
    )


def test_a_turn_is_posted_signed_with_its_id_and_answered(httpserver: Any) -> None:
    def bot(request: Request) -> Response:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        assert verify_webhook([CREDENTIALS["secret"]], *(request.headers[name] for name in names), request.data)
        assert request.headers["webhook-id"] == "turn-7"
        assert json.loads(request.data) == {"type": "turn", "data": TURN}
        return Response(json.dumps({"replies": [{"text": "hi"}], "state": {"n": 1}}))

    httpserver.expect_request("/turn").respond_with_handler(bot)
    assert ask(channel(httpserver.url_for("/turn")), TURN) == {
        "replies": [{"text": "hi", "choices": [], "attachments": []}],
        "state": {"n": 1},
    }


def test_an_empty_answer_says_nothing(httpserver: Any) -> None:
    httpserver.expect_request("/turn").respond_with_data("", status=204)
    assert ask(channel(httpserver.url_for("/turn")), TURN) == {"replies": []}


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, ""), (302, ""), (200, "{"), (200, '{"replies":NaN}'), (200, "[]"), (200, " " * 1_100_000)],
)
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
    data["text"] = "." * (MAX_LATE_BYTES - len(json.dumps({"data": data})))
    late = read_late(json.dumps({"data": data}).encode())
    with pytest.raises(Unreadable, match="more than"):
        read_late(json.dumps({"data": {**data, "text": data["text"] + "."}}).encode())
    parts = (late.bodies[0], *[ReplyBody(text="x")] * late_replies.MAX_PARTS)
    assert "parts" in late_replies.store(channel(""), late_replies.LateReply(turn=1, key="k", bodies=parts))
