"""What we put in place of granian's WSGI layer."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import granian.server.mp
import pytest
from django.core.files import File

from botproject import web
from conversations.media.serving import FileAnswer


class Connection:
    """Stands for granian's protocol object."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, headers, body))

    def response_iter(self, status: int, headers: list[tuple[str, str]], body: Iterator[bytes]) -> None:
        self.sent.append((status, headers, next(body)))
        raise ConnectionError


def serve(application: web.Application, scope: dict[str, Any]) -> Connection:
    connection = Connection()
    web.connected(application, {}, None)(connection, scope)
    return connection


def test_a_request_does_not_carry_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "s3cret")
    monkeypatch.setenv("HTTP_PROXY", "http://user:s3cret@proxy")
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    serve(application, {"PATH_INFO": "/", "HTTP_HOST": "a", "wsgi.input": None})
    assert seen["PATH_INFO"] == "/"
    assert "s3cret" not in str(seen)
    assert {name for name in seen if not name.startswith(("wsgi.", "HTTP_", "channels_ingest."))} == {
        "GATEWAY_INTERFACE",
        "PATH_INFO",
        "SCRIPT_NAME",
        "SERVER_SOFTWARE",
    }


def test_granian_gets_bytes_from_an_iterator() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("418 I'm a teapot", [("a", "b")])
        yield from (b"short and ", b"stout")

    assert serve(application, {}).sent == [(418, [("a", "b")], b"short and stout")]


@pytest.mark.usefixtures("own_database")  # its connections are closed
def test_granian_takes_a_file_chunk_by_chunk_and_it_is_closed_whatever_happens() -> None:
    file = File(io.BytesIO(bytes(100_000)))
    answer, connection = FileAnswer(file, 100_000), Connection()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return answer

    with pytest.raises(ConnectionError):
        web.connected(application)(connection, {})
    assert (connection.sent, file.closed) == ([(200, [], bytes(32 * 1024))], True)


def test_the_kernel_keeps_little_for_a_client_that_does_not_read_and_not_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        web.limit_unread.__wrapped__()
        with socket.create_connection(server.getsockname()), server.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * web.UNREAD_BYTES


def test_requests_are_answered_without_proc(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def missing(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(web.os, "listdir", missing)
    web.limit_unread.__wrapped__()
    assert "without /proc" in caplog.text


@pytest.mark.parametrize(("status", "scope", "closes"), [
    ("401 Unauthorized", {"CONTENT_LENGTH": "2"}, True),
    ("413 Content Too Large", {"HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ("404 Not Found", {}, False),
    ("200 OK", {"CONTENT_LENGTH": "2"}, False),
])  # fmt: skip
def test_who_was_not_read_is_told_that_the_connection_ends(status: str, scope: dict[str, Any], closes: bool) -> None:
    """Otherwise a router would send somebody else's request on a connection that the server closes."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, [])
        return [b""]

    assert (("connection", "close") in serve(application, scope).sent[0][1]) == closes


def test_a_granian_of_another_make_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise bodies that never end would not be cut, and nobody would notice."""
    monkeypatch.delattr(granian.server.mp, web.LAYER)
    with pytest.raises(RuntimeError):
        web.guarded(lambda environ, start_response: [])
