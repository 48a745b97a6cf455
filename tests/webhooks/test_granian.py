"""What we put in place of granian's WSGI layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import granian.server.mp
import pytest

from botproject import web


class Connection:
    """Stands for granian's protocol object."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[tuple[str, str]], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, headers, body))


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
