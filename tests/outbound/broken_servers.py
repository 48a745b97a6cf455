"""One table of answers, whole and broken: what our client makes of each, and what urllib3 does.

A row whose two results differ says why. The differences are on purpose: either ours knows more
(a status that was read stands), or it is stricter than ``http.client``, on which urllib3 is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from channels_ingest.outbound.connection import ANSWER_CAP, HEAD_CAP, READ_CAP
from tests.kit.http_servers import OK

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW_DOWN = b"HTTP/1.1 429 Slow down\r\n"


class Result(NamedTuple):
    """An answer as a client returns it; ``None`` in its place: no answer."""

    status: int
    body: bytes
    complete: bool


@dataclass(frozen=True)
class Row:
    """Bytes that a server sends before it hangs up. ``why``: the difference between the clients."""

    name: str
    answer: bytes
    ours: Result | None
    urllib3: Result | None
    why: str = ""


def same(name: str, answer: bytes, result: Result | None) -> Row:
    return Row(name, answer, result, result)


def strict(name: str, answer: bytes, body: bytes = b"ok") -> Row:
    """We keep the status and trust no more of it; urllib3 takes the body for whole."""
    return Row(name, answer, Result(200, b"", False), Result(200, body, True), "httptools is stricter than http.client")


CUT_CHUNK = "urllib3 gives a chunked body only as far as its last whole read"
BAD_HEAD = "http.client takes the end of the stream, or a line without a colon, for the end of the head"
HEAD_OVER_CAP = "http.client forgets the status of a head that is too long"

WHOLE = [
    Row("interim answers", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + OK,
        Result(200, b"ok", True), Result(103, b"", True), "http.client skips 100 and no other interim status"),
    same("chunks", CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", Result(200, b"abc", True)),
    same("trailers", CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: t\r\nX-Other: u\r\n\r\n", Result(200, b"abc", True)),
    same("until the end", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", Result(200, b"until the end", True)),
    same("HTTP/1.0", b"HTTP/1.0 500 No\r\n\r\n", Result(500, b"", True)),
    same("204", b"HTTP/1.1 204 No Content\r\n\r\n", Result(204, b"", True)),
    same("304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Result(304, b"", True)),
    same("a redirect", b"HTTP/1.1 302\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
         Result(302, b"", True)),
    same("line feeds alone", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Result(200, b"ok", True)),
]  # fmt: skip
CUT = [
    same("a cut body", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Result(200, b"abc", False)),
    Row("a cut chunk", CHUNKED + b"9\r\nabc", Result(200, b"abc", False), Result(200, b"", False), CUT_CHUNK),
    Row("no last chunk", CHUNKED + b"3\r\nabc\r\n", Result(200, b"abc", False), Result(200, b"", False), CUT_CHUNK),
    Row("no chunk length", CHUNKED + b"3\r\nabc\r\nno number\r\n", Result(200, b"abc", False), Result(200, b"", False),
        CUT_CHUNK),
    Row("a cut head", b"HTTP/1.1 200 OK\r\nContent-Le", Result(200, b"", False), Result(200, b"", True), BAD_HEAD),
    Row("no header line", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", Result(200, b"", False), Result(200, b"", True),
        BAD_HEAD),
]  # fmt: skip
STRICT = [
    Row("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", Result(200, b"", False),
        None, "urllib3 refuses the answer with its status"),
    strict("a length and chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + CHUNKED[17:] + b"2\r\nok\r\n0\r\n\r\n"),
    strict("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
    strict("a length in words", b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"),
    strict("a space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"),
    strict("a folded header", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
    strict("a NUL in a header", b"HTTP/1.1 200 OK\r\nX: \x00a\r\nContent-Length: 2\r\n\r\nok"),
    same("a negative chunk", CHUNKED + b"-2\r\nok\r\n0\r\n\r\n", Result(200, b"", False)),
]  # fmt: skip
NO_ANSWERS = [
    same("nothing", b"", None),
    same("garbage", b"garbage\r\n\r\n", None),
    same("a cut status", b"HTTP/1.1 2", None),
    same("status 2000", b"HTTP/1.1 2000 OK\r\n\r\n", None),
    same("status 000", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", None),
    same("only an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n", None),
    Row("another protocol", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None,
        Result(101, b"", True), "http.client returns 101, which nobody asked for"),
    same("interim answers without end", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, None),
    same("HTTP/2", b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
    same("ICY", b"ICY 200 OK\r\n\r\nok", None),
]  # fmt: skip
ENDLESS = [
    Row("a long header", SLOW_DOWN + b"X-Long: " + b"x" * HEAD_CAP + b"\r\nContent-Length: 0\r\n\r\n",
        Result(429, b"", False), None, HEAD_OVER_CAP),
    Row("many headers", SLOW_DOWN + b"X-Many: x\r\n" * 10_000 + b"Content-Length: 0\r\n\r\n", Result(429, b"", False),
        None, HEAD_OVER_CAP),
    same("a trailer", SLOW_DOWN + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 2 * READ_CAP,
         Result(429, b"", False)),
    same("a chunk's extension", SLOW_DOWN + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 2 * READ_CAP,
         Result(429, b"", False)),
]  # fmt: skip
OVER_CAP = [
    same(
        name,
        b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b"x" * 2_000_000,
        Result(200, b"x" * ANSWER_CAP, False),
    )
    for name, length in (("a long body", b"Content-Length: 2000000\r\n"), ("a long body until the end", b""))
]
ALL = [*WHOLE, *CUT, *STRICT, *NO_ANSWERS, *ENDLESS, *OVER_CAP]
