"""Downloads: into a file, under a cap, without redirects, never into a private network."""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from channels_ingest.adapters.base import Adapter
from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.telegram import Telegram
from channels_ingest.outbound import connection, deadlines, http
from conversations.contracts import Attachment, ChannelConfig, Deferred, Failed, Fetched, Fetching, Rejected, Unknown
from tests.kit.fixtures import channel
from tests.kit.http_servers import Serve, Server, always, read_request

MOST = 3 << 20


def answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    stated = f"Content-Length: {len(body) if length is None else length}"
    return "\r\n".join((f"HTTP/1.1 {status}", stated, *headers, "", "")).encode() + body


LARGE = bytes(MOST)
ENDINGS: list[tuple[bytes, Fetching]] = [
    (answer("200 OK", b"a picture"), Fetched()),
    (answer("200 OK", LARGE), Fetched()),
    (answer("200 OK", LARGE + b"!"), Rejected(reason="it is larger than 3 MB")),
    (answer("200 OK", b"cut", length=9), Failed(reason="it did not arrive whole")),
    (
        answer("302 Found", b"", "Location: http://169.254.169.254/"),
        Rejected(reason="its address leads to another one"),
    ),
    (answer("404 Not Found", b"no"), Failed(reason="HTTP 404")),
    (answer("429 Too Many Requests", b"", "Retry-After: 7"), Deferred(seconds=7, reason="HTTP 429")),
    (answer("500 Oops", bytes(connection.ANSWER_CAP + 9)), Failed(reason="HTTP 500")),
    (b"nonsense", Failed(reason="no answer: ProtocolError")),
]


@pytest.mark.parametrize(("said", "ending"), ENDINGS, ids=lambda it: "" if isinstance(it, bytes) else str(it)[:40])
def test_what_an_answer_means_for_a_download(serve: Serve, said: bytes, ending: Fetching) -> None:
    into = io.BytesIO()
    assert http.download(serve(always(said, times=1)).url, into, MOST) == ending
    if ending == Fetched():
        assert into.getvalue() == said.partition(b"\r\n\r\n")[2]
    assert into.tell() <= MOST + connection.READ_BYTES


def test_after_a_download_the_connection_serves_other_calls(serve: Serve) -> None:
    server = serve(always(answer("200 OK", b"a picture")))
    for _ in range(3):
        into = io.BytesIO()
        assert http.download(server.url, into, MOST) == Fetched()
        assert into.getvalue() == b"a picture"
    assert server.connections == 1


@pytest.mark.parametrize("url", [
    "https://127.0.0.1/a", "https://169.254.169.254/", "http://e.org/", "file:///etc/passwd",
])  # fmt: skip
def test_no_file_comes_from_a_private_network_or_another_protocol(settings: Any, url: str) -> None:
    settings.ALLOW_PRIVATE_OUTBOUND = False
    assert isinstance(http.download(url, io.BytesIO(), MOST), Rejected)
    assert isinstance(Generic().fetch(config(""), Attachment(kind="image", url=url), io.BytesIO(), MOST), Rejected)


def test_a_file_that_drips_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "PATIENCE_SECONDS", 0.3)

    def drip(connected: socket.socket) -> None:
        read_request(connected)
        connected.sendall(answer("200 OK", length=100))
        for _ in range(100):
            connected.sendall(b"x")
            time.sleep(0.1)

    server = serve(drip)
    assert http.download(server.url, io.BytesIO(), MOST) == Failed(reason="it did not arrive whole")
    assert server.hung_up.acquire(timeout=10)


@pytest.mark.parametrize(("rate", "end"), [(0, 15.0), (50, 30.0), (100, 120.0), (10_000, 120.0)])
def test_a_call_with_a_least_rate_lasts_as_long_as_its_bytes_may_take(
    monkeypatch: pytest.MonkeyPatch, rate: int, end: float
) -> None:
    clock, calls = SimpleNamespace(now=0.0, monotonic=lambda: clock.now), []
    later = SimpleNamespace(call_later=lambda seconds, call: calls.append((clock.now + seconds, call)))
    monkeypatch.setattr(deadlines, "time", clock)
    monkeypatch.setattr(deadlines, "_timer", lambda: later)
    here, there = socket.socketpair()
    watch = deadlines.Watch(120.0, 100.0)
    watch.hold(deadlines.Handle(here))
    while calls:
        at, call = calls.pop()
        while clock.now < at:
            clock.now += 0.5
            watch.received(rate // 2)
        call()
    assert (clock.now, watch.end()) == (end, False)
    there.close()
    here.close()


# ---------------------------------------------------------------- platforms


def config(api_base: str) -> ChannelConfig:
    keys = {"token": "4242:ABC", "access_token": "EAAtoken"}
    return channel("x", api_base=api_base, credentials=keys, phone_number_id="555000")


def platform(serve: Serve, say: Callable[[str, str], bytes]) -> tuple[Server, list[str]]:
    """A server that answers by path; and what it was asked, with the token's header."""
    asked: list[str] = []

    def speak(connected: socket.socket) -> None:
        while data := read_request(connected).decode():
            line, *headers = data.partition("\r\n\r\n")[0].split("\r\n")
            token = next((header for header in headers if header.startswith("authorization")), "")
            asked.append(" ".join((*line.split()[:2], token)).strip())
            connected.sendall(say(line.split()[1], f"http://127.0.0.1:{server.port}"))

    server = serve(speak)
    return server, asked


def as_json(status: str, value: Any) -> bytes:
    return answer(status, json.dumps(value).encode())


TOO_BIG = "Bad Request: file is too big"
AWAY = "Bad Request: wrong file_id or the file is temporarily unavailable"
TELEGRAM: list[tuple[bytes, Fetching]] = [
    (as_json("200 OK", {"ok": True, "result": {"file_path": "photos/a b.jpg"}}), Fetched()),
    (as_json("200 OK", {"ok": True, "result": {}}), Unknown(reason="an answer without the file's path")),
    (as_json("200 OK", {"ok": True, "result": {"file_path": "/var/lib/a"}}),
     Rejected(reason="the Bot API server keeps it on a disk of its own")),
    (as_json("400 Bad Request", {"ok": False, "description": TOO_BIG}), Rejected(reason=f"400 {TOO_BIG}")),
    (as_json("400 Bad Request", {"ok": False, "description": AWAY}), Failed(reason=f"400 {AWAY}")),
]  # fmt: skip


@pytest.mark.parametrize(("said", "ending"), TELEGRAM)
def test_telegrams_files_come_by_way_of_get_file(serve: Serve, said: bytes, ending: Fetching) -> None:
    server, asked = platform(serve, lambda path, _: said if "/getFile" in path else answer("200 OK", b"a picture"))
    into = io.BytesIO()
    picture = Attachment(kind="image", file_id="AgAC")
    assert Telegram().fetch(config(f"http://127.0.0.1:{server.port}"), picture, into, MOST) == ending
    assert asked[0] == "POST /bot4242:ABC/getFile"
    if ending == Fetched():
        assert (asked[1:], into.getvalue()) == (["GET /file/bot4242:ABC/photos/a%20b.jpg"], b"a picture")


def test_whatsapps_files_come_from_the_address_that_meta_tells_with_the_token(serve: Serve) -> None:
    def say(path: str, base: str) -> bytes:
        told = as_json("200 OK", {"url": f"{base}/v/t62?x=1", "mime_type": "image/jpeg"})
        return answer("200 OK", b"a picture") if path.startswith("/v/") else told

    server, asked = platform(serve, say)
    into = io.BytesIO()
    file = Attachment(kind="image", file_id="900/100")
    assert WhatsApp().fetch(config(f"http://127.0.0.1:{server.port}"), file, into, MOST) == Fetched()
    assert into.getvalue() == b"a picture"
    token = "authorization: Bearer EAAtoken"
    assert asked == [f"GET /v26.0/900%2F100?phone_number_id=555000 {token}", f"GET /v/t62?x=1 {token}"]


@pytest.mark.parametrize("url", [
    "https://evil.example/a", "https://fbcdn.net.evil.example/", "https://x@fbcdn.net.evil/", 7,
])  # fmt: skip
def test_no_other_server_gets_metas_token(monkeypatch: pytest.MonkeyPatch, url: Any) -> None:
    calls: list[str] = []

    def call(method: str, address: str, **options: Any) -> http.Answered:
        calls.append(address)
        return http.Answered(200, body=json.dumps({"url": url}).encode())

    monkeypatch.setattr(http, "call", call)
    ending = WhatsApp().fetch(config(""), Attachment(kind="image", file_id="9"), io.BytesIO(), MOST)
    assert ending == Unknown(reason="an answer without an address of Meta")
    assert len(calls) == 1


def test_an_id_that_meta_forgot_is_final_and_a_token_that_it_refuses_is_not(serve: Serve) -> None:
    for code, is_final in ((100, True), (190, False)):
        said = as_json("400 Bad Request", {"error": {"code": code, "message": "no"}})
        server, _ = platform(serve, lambda path, _, said=said: said)  # type: ignore[misc]
        picture, into = Attachment(kind="image", file_id="9"), io.BytesIO()
        ending = WhatsApp().fetch(config(f"http://127.0.0.1:{server.port}"), picture, into, MOST)
        assert isinstance(ending, Rejected)
        assert (ending.scope == "reply") == is_final


def test_a_platform_without_files_says_so() -> None:
    class Silent(Generic):
        platform = "silent"

    ours: Adapter = Silent()
    assert isinstance(ours.fetch(config(""), Attachment(kind="image", file_id="9"), io.BytesIO(), MOST), Rejected)
