"""A bot in another process: the turn goes out signed, its answer comes back checked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug import Request, Response

from channels_ingest.formats.signatures import verify_webhook
from channels_ingest.http_bots.protocol import BotFailed, ask
from conversations.contracts import ChannelConfig
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
