"""Whatever a server answers, in whatever pieces: an answer as the standard library reads it, or our own error."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import socket
import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.outbound.connection import ANSWER_CAP, Answered, ProtocolError, _Connection
from channels_ingest.outbound.deadlines import Watch

TOKENS = st.sampled_from(
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b"100 Continue", b"204", b"content-length: 3", b"Transfer-Encoding: chunked",
     b"\r\n", b"\n", b"\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"content-length: -1", b": ", b"\0", b"\xff",
     b"Connection: close\r\n", b"ffffffffff\r\n"]
)  # fmt: skip
BYTES = st.lists(st.one_of(TOKENS, st.binary(max_size=8)), max_size=12).map(b"".join)
NAMES = st.sampled_from(["retry-after", "content-type", "x-a", "x-b"])
HEADERS = st.dictionaries(NAMES, st.text(st.characters(codec="latin-1", categories=("L", "N")), max_size=9), max_size=3)


class Wire(io.BytesIO):
    """Bytes that the standard library's client reads as if they came from a socket."""

    def makefile(self, *_: object) -> Wire:
        return self


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def ask(data: bytes, cuts: Sequence[int] = ()) -> Answered:
    """What our client makes of an answer that comes in these pieces."""
    ours, server = socket.socketpair()
    with ours, server, contextlib.closing(_Connection(ours)) as connection:
        for piece in pieces(data, cuts):
            server.sendall(piece)
        server.shutdown(socket.SHUT_WR)
        answered, _ = connection.ask(b"GET / HTTP/1.1\r\n\r\n", Watch(time.monotonic() + 60))
    return answered


@given(data=BYTES, cuts=st.lists(st.integers(0, 99), max_size=4))
def test_no_bytes_end_in_another_error(data: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(ProtocolError):
        answered = ask(data, cuts)
        assert 200 <= answered.status <= 999
        assert len(answered.body) <= ANSWER_CAP


@given(status=st.integers(200, 599), headers=HEADERS, body=st.binary(max_size=200),
       framing=st.sampled_from(["length", "chunked", "end of stream"]),
       cuts=st.lists(st.integers(0, 999), max_size=6))  # fmt: skip
def test_an_answer_is_read_as_the_standard_library_reads_it(
    status: int, headers: dict[str, str], body: bytes, framing: str, cuts: list[int]
) -> None:
    data = written(status, headers, body, framing)
    wanted = http.client.HTTPResponse(Wire(data), method="POST")  # type: ignore[arg-type]
    wanted.begin()
    read = wanted.read() if status not in (204, 304) else b""  # these have none: it takes chunks for one
    answered = ask(data, cuts)
    assert (answered.status, answered.body, answered.complete) == (wanted.status, read, True)
    assert {name: answered.headers[name] for name in headers} == {name: wanted.headers[name] for name in headers}


def written(status: int, headers: dict[str, str], body: bytes, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        chunks = [body[start : start + 7] for start in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
