"""Texts, names and secrets sent through the whole product are found in Postgres and nowhere else."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import redis

from tests.kit.doubles import Double
from tests.kit.stack import Stack, wait_until

TEXT, NAME, USERNAME = "canary-text-8d21", "Canaryname Q7z", "canary_user_55"
TOKEN, SECRET = "4242:canaryTOKEN99", "canary-secret-token-31415926535897"
WORDS = (TEXT, NAME, USERNAME, TOKEN, SECRET, "canaryTOKEN99")


class Sentry:
    """What would have gone to Sentry."""

    def __init__(self) -> None:
        self.envelopes: list[bytes] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                packed = self.headers.get("Content-Encoding") == "gzip"
                stub.envelopes.append(gzip.decompress(body) if packed else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.dsn = f"http://public@127.0.0.1:{self._server.server_address[1]}/1"

    def close(self) -> None:
        self._server.shutdown()


@contextlib.contextmanager
def overheard(url: str) -> Iterator[list[str]]:
    """Every command that Redis is given meanwhile, its values included (MONITOR, a line each, as Redis writes it)."""
    place = urlsplit(url)
    heard: list[str] = []
    with socket.create_connection((place.hostname, place.port)) as line, line.makefile("r", errors="replace") as lines:
        line.sendall(f"AUTH {place.username or 'default'} {place.password}\r\nMONITOR\r\n".encode())
        assert [lines.readline(), lines.readline()] == ["+OK\n", "+OK\n"], "Redis lets us listen"
        listener = threading.Thread(target=lambda: heard.extend(lines), daemon=True)
        listener.start()
        yield heard
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        listener.join()


def update(number: int, text: str) -> bytes:
    person = {"id": 7001, "is_bot": False, "first_name": NAME, "username": USERNAME, "language_code": "en"}
    chat = {"id": 7001, "type": "private", "first_name": NAME, "username": USERNAME}
    message = {"message_id": number, "date": 1790000000 + number, "from": person, "chat": chat, "text": text}
    return json.dumps({"update_id": number, "message": message}).encode()


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    stub = Sentry()
    yield stub
    stub.close()


@pytest.mark.slow
@pytest.mark.parametrize("bot", ["careless", "careless_async"])
def test_what_people_say_is_in_postgres_only(sentry: Sentry, bot: str) -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.telemetry.canary.settings", "SENTRY_DSN": sentry.dsn,
                "LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG"}  # fmt: skip
    with Double() as double, Stack(env=settings) as stack, overheard(stack.servers.redis_url) as heard:
        channel = stack.add_channel("telegram", bot=bot, api_base=double.url, token=TOKEN, secret_token=SECRET)
        double.script({"do": "400", "description": f"Bad Request: {TEXT}"}, {"do": "500", "description": TEXT},
                      {"do": "accept_then_reset"})  # fmt: skip
        headers = {"X-Telegram-Bot-Api-Secret-Token": SECRET, "Content-Type": "application/json"}
        for number in range(1, 6):
            assert stack.post(channel, update(number, TEXT), headers) == 200
        assert stack.post(channel, update(6, f"boom {TEXT}"), headers) == 200
        assert stack.post(channel, update(7, TEXT), {**headers, "X-Telegram-Bot-Api-Secret-Token": f"{SECRET}x"}) == 401
        assert stack.post(channel, f'{{"text": "{TEXT}"'.encode(), headers) == 200, "quarantined"
        failed = "SELECT count(*) FROM turn WHERE outcome = 'failed' AND error_text LIKE %s"
        wait_until(lambda: stack.value(failed, f"%{TEXT}%") > 0, 40, "a failed turn, its words in the database")
        wait_until(lambda: len(double.accepted("sendMessage")) >= 3, 40, "replies")
        wait_until(lambda: bool(sentry.envelopes), 20, "Sentry hears of the failure")
        kept = keys_and_values(stack.servers.redis_url)
        results = str(stack.query("SELECT * FROM django_celery_results_taskresult"))
        places = {"logs": stack.logs(), "redis": kept, "redis commands": "".join(heard),
                  "sentry": b"\n".join(sentry.envelopes).decode(errors="replace"), "results": results}  # fmt: skip
    assert heard, "the listener listened"
    for place, written in places.items():
        found = [word for word in WORDS if word in written or json.dumps(word)[1:-1] in written]
        assert not found, f"{found} in {place}: {context(written, found[0])}"
    assert set(line_values(places["logs"], "trace")), "lines carry the message that they are about"


def context(written: str, word: str) -> str:
    at = written.find(word)
    return written[max(0, at - 500) : at + 100]


def keys_and_values(url: str) -> str:
    found = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            found += [key, client.dump(key) or b""]
    return b"\n".join(found).decode(errors="replace")


def line_values(written: str, name: str) -> Iterator[str]:
    for line in written.splitlines():
        _, brace, rest = line.partition("{")
        with contextlib.suppress(ValueError):
            value = json.loads(brace + rest).get(name)
            if value:
                yield from value if isinstance(value, list) else [value]
