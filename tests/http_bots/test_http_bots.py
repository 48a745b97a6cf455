"""A bot in any language, a real small server: turns out, replies back, at once or later; and what buttons carry."""

from __future__ import annotations

import collections
import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from channels_ingest.formats.signatures import sign_webhook, verify_webhook
from tests.kit.doubles import Double
from tests.kit.platforms import GENERIC_SECRET, generic_text, telegram, telegram_text
from tests.kit.shared import shared
from tests.kit.stack import Channel, Stack, wait_until

pytestmark = [pytest.mark.xdist_group("http_bots"), pytest.mark.timeout(400)]
LONG = "order:" + "0123456789" * 10


class Bot:
    """Counts what a person says; knows a few words."""

    def __init__(self) -> None:
        self.turns: list[dict[str, Any]] = []
        self.broken = 0
        bot = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                names = ("webhook-id", "webhook-timestamp", "webhook-signature")
                assert verify_webhook([GENERIC_SECRET], *(self.headers[name] for name in names), body)
                status, answer = bot.answer(json.loads(body)["data"], self.headers["webhook-id"])
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/turn"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, turn: dict[str, Any], webhook_id: str) -> tuple[int, dict[str, Any]]:
        assert turn["id"] == webhook_id
        self.turns.append(turn)
        if self.broken:
            self.broken -= 1
            return 500, {}
        said = turn["message"].get("text", "")
        if turn["message"]["kind"] == "button":
            return 200, {"replies": [{"text": f"chosen {turn['message']['payload']}"}]}
        if said == "choose":
            return 200, {"replies": [{"text": "which?", "choices": [{"id": LONG, "title": "That one"}]}]}
        if said == "later":
            return 200, {"replies": [{"text": "one moment"}], "later": True}
        count = turn["state"].get("count", 0) + 1
        return 200, {"replies": [{"text": f"{count}: {said}"}], "state": {"count": count}}

    def turn(self, text: str) -> str:
        return str(next(turn["id"] for turn in self.turns if turn["message"].get("text") == text))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def bot() -> Iterator[Bot]:
    bot = Bot()
    yield bot
    bot.close()


stack = shared()


@pytest.fixture
def generic(stack: Stack, bot: Bot, double: Double) -> Channel:
    """A channel of this try: people and the bot remember nothing of another one."""
    double.reset()
    bot.turns.clear()
    bot.broken = 0
    stack.query("UPDATE channel SET active = false")
    url = f"{double.url}/out"
    return stack.add_channel("generic", bot="http", secret=GENERIC_SECRET, outbound_url=url, bot_url=bot.url)


def write(stack: Stack, channel: Channel, user: str, text: str) -> None:
    assert stack.post(channel, *generic_text(channel, user, uuid.uuid4().hex, text)) == 200


def shown(double: Double, chat: str) -> list[str]:
    return [line["text"] for line in double.accepted() if line["chat"] == chat]


def post_late(stack: Stack, channel: Channel, data: dict[str, Any], secret: str = GENERIC_SECRET) -> int:
    body, at, webhook_id = json.dumps({"type": "reply", "data": data}).encode(), str(int(time.time())), uuid.uuid4().hex
    signed = {"webhook-id": webhook_id, "webhook-timestamp": at,
              "webhook-signature": sign_webhook(secret, webhook_id, at, body)}  # fmt: skip
    url = f"http://127.0.0.1:{stack.ports[0]}/bots/{channel.public_id}/replies/"
    return stack.http.request("POST", url, body=body, headers=signed).status


@pytest.mark.slow
def test_turns_go_out_and_state_and_replies_come_back(stack: Stack, bot: Bot, double: Double, generic: Channel) -> None:
    bot.broken = 1  # the first attempt fails; its turn has the same id
    for text in ("a", "b", "c"):
        write(stack, generic, "ann", text)
    wait_until(lambda: len(shown(double, "ann")) == 3, 30, "three answers")
    assert shown(double, "ann") == ["1: a", "2: b", "3: c"]
    ids = collections.Counter(turn["id"] for turn in bot.turns)
    assert sorted(ids.values()) == [1, 1, 2]


def test_a_bot_that_is_down_touches_no_other_tenants_channel(
    stack: Stack, bot: Bot, double: Double, generic: Channel
) -> None:
    down = Bot()
    down.broken = 1_000
    values = {"secret": GENERIC_SECRET, "outbound_url": f"{double.url}/out", "bot_url": down.url}
    broken = stack.add_channel("generic", bot="http", **values)
    try:
        for n in range(10):
            write(stack, broken, f"b{n}", "hello")
        stopped = "SELECT scope, target FROM pause WHERE since IS NOT NULL"
        wait_until(lambda: stack.query(stopped) == [("channel", str(broken.id))], 20, "its own channel is stopped")
        for n in range(10):
            write(stack, generic, f"n{n}", "hello")
        answered = ["1: hello"]
        wait_until(lambda: all(shown(double, f"n{n}") == answered for n in range(10)), 20, "the neighbour's answers")
        assert stack.query("SELECT scope, target FROM pause") == [("channel", str(broken.id))]
    finally:
        down.close()
        stack.query("UPDATE channel SET active = false WHERE id = %s", broken.id)
        stack.query("DELETE FROM pause")


def test_late_replies_are_stored_once_and_in_the_order_of_their_coming(
    stack: Stack, bot: Bot, double: Double, generic: Channel
) -> None:
    write(stack, generic, "bob", "later")
    wait_until(lambda: shown(double, "bob") == ["one moment"], 20, "the first answer")
    turn = bot.turn("later")
    assert [post_late(stack, generic, {"turn": turn, "key": "k1", "text": "done"}) for _ in range(3)] == [200] * 3
    assert post_late(stack, generic, {"turn": turn, "key": "k2", "text": "really done"}) == 200
    wait_until(lambda: len(shown(double, "bob")) >= 3, 20, "both late ones")
    time.sleep(0.5)
    assert shown(double, "bob") == ["one moment", "done", "really done"]
    lane = stack.value("SELECT id FROM conversation WHERE chat = 'bob' AND channel_id = %s", generic.id)
    numbers = "SELECT sequence, external_key FROM reply WHERE conversation_id = %s ORDER BY sequence"
    assert stack.query(numbers, lane) == [(1, None), (2, "k1"), (3, "k2")]


def test_late_replies_of_strangers_and_of_other_channels_are_no_replies(
    stack: Stack, bot: Bot, double: Double, generic: Channel
) -> None:
    other = stack.add_channel("generic", bot="http", secret=GENERIC_SECRET, bot_url=bot.url, outbound_url=double.url)
    write(stack, generic, "cat", "mine")
    wait_until(lambda: len(shown(double, "cat")) == 1, 20, "an answer")
    late = {"turn": bot.turn("mine"), "key": "s1", "text": "not yours"}
    wrong = "whsec_" + "QUJD" * 8
    assert post_late(stack, generic, late, secret=wrong) == 401
    url = f"http://127.0.0.1:{stack.ports[0]}/bots/{generic.public_id}/replies"
    assert stack.http.request("GET", url).status == 405
    before = stack.value("SELECT count(*) FROM reply")
    assert post_late(stack, other, late) == 200
    assert post_late(stack, generic, {"turn": "turn_x", "key": "s2", "text": "?"}) == 200
    assert post_late(stack, generic, {"turn": late["turn"], "key": "", "text": "?"}) == 200
    assert stack.value("SELECT count(*) FROM reply") == before
    reasons = [row[0] for row in stack.query("SELECT reason FROM quarantine WHERE starts_with(reason, 'a late reply')")]
    assert len(reasons) == 3, reasons


def test_a_late_reply_after_a_take_over_is_a_draft_and_what_follows_still_goes_out(
    stack: Stack, bot: Bot, double: Double, generic: Channel
) -> None:
    write(stack, generic, "dan", "hello dan")
    wait_until(lambda: len(shown(double, "dan")) == 1, 20, "an answer")
    lane = stack.value("SELECT id FROM conversation WHERE chat = 'dan' AND channel_id = %s", generic.id)
    stack.query("UPDATE conversation SET mode = 'human', epoch = epoch + 1 WHERE id = %s", lane)
    assert post_late(stack, generic, {"turn": bot.turn("hello dan"), "key": "d1", "text": "too late"}) == 200
    became = stack.query("SELECT status FROM reply WHERE conversation_id = %s ORDER BY sequence", lane)
    assert became == [("sent",), ("cancelled",)]
    stack.query("UPDATE conversation SET mode = 'bot', epoch = epoch + 1 WHERE id = %s", lane)
    write(stack, generic, "dan", "again")
    wait_until(lambda: shown(double, "dan") == ["1: hello dan", "2: again"], 20, "the next answer, and no draft")


def test_a_long_choice_comes_back_whole_pressed_or_typed_and_the_button_stops_spinning(
    stack: Stack, bot: Bot, double: Double
) -> None:
    values = {"token": "5:e", "secret_token": "s3cret-Token-0123456789", "secret": GENERIC_SECRET, "bot_url": bot.url,
              "limits": "off"}  # fmt: skip
    channel = stack.add_channel("telegram", bot="http", api_base=double.url, **values)
    assert stack.post(channel, *telegram_text(channel, 4242, 1, "choose")) == 200
    wait_until(lambda: shown(double, "4242") == ["which?"], 20, "the question")
    question = next(line for line in double.accepted() if line["chat"] == "4242")
    pressed = question["body"]["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
    assert len(pressed) <= 64
    assert pressed != LONG
    person = {"id": 4242, "is_bot": False, "first_name": "User"}
    chat = {"id": 4242, "type": "private", "first_name": "User"}
    message = {"message_id": question["message_id"], "date": 1_790_000_000, "chat": chat, "text": "which?"}
    query = {"id": "cb1", "from": person, "chat_instance": "1", "data": pressed, "message": message}
    assert stack.post(channel, *telegram(channel, {"update_id": 99, "callback_query": query})) == 200
    wait_until(lambda: shown(double, "4242")[-1] == f"chosen {LONG}", 20, "the bot reads the whole choice")
    wait_until(lambda: len(double.calls("answerCallbackQuery")) == 1, 10, "the button was answered")
    assert double.calls("answerCallbackQuery")[0]["body"] == {"callback_query_id": "cb1"}

    # A typed number is the same choice, once, also if its webhook comes twice.
    for number, text, answers in ((1, "choose", "which?"), (2, "1", f"chosen {LONG}"), (3, "1", "1: 1")):
        body, headers = telegram_text(channel, 4343, number, text)
        assert [stack.post(channel, body, headers) for _ in range(2)] == [200, 200]
        wait_until(lambda: shown(double, "4343")[-1:] == [answers], 20, f"the answer to {text}")
    assert shown(double, "4343") == ["which?", f"chosen {LONG}", "1: 1"]
