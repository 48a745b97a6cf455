"""Our client beside urllib3, on the same broken servers.

The day a library is fast enough, swapping it in is a change of one file, and this table says what
changes with it.
"""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
import urllib3

from channels_ingest.outbound import connection, http
from tests.kit.http_servers import OK, Serve, Server, always, call, hang, read_request
from tests.outbound.broken_servers import ALL, Result, Row

BROKEN = (urllib3.exceptions.HTTPError, ValueError)  # http.client lets a bad chunk's ValueError pass


def ours(server: Server) -> Result | None:
    try:
        answered = call(server)
    except http.CallFailed:
        return None
    return Result(answered.status, answered.body, answered.complete)


class Urllib3:
    """urllib3 with the rules of ours: no redirect, no retry, no decompression, a cap on the body."""

    def __init__(self, server: Server) -> None:
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", server.port, maxsize=1)

    def __call__(self, seconds: float = 20.0) -> Result | None:
        try:
            response = self._pool.urlopen(
                "POST", "/bot?x=1", body=b"{}", redirect=False, retries=False, preload_content=False,
                decode_content=False, timeout=urllib3.Timeout(total=seconds),
            )  # fmt: skip
        except BROKEN:
            return None
        body, complete = bytearray(), False
        with contextlib.suppress(*BROKEN):
            while len(body) <= connection.ANSWER_CAP and (data := response.read(65536)):
                body += data
            complete = len(body) <= connection.ANSWER_CAP
        if complete:
            response.release_conn()
        else:
            response.close()
        return Result(response.status, bytes(body[: connection.ANSWER_CAP]), complete)


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_each_client_makes_of_an_answer_what_the_table_says(serve: Serve, row: Row) -> None:
    assert ours(serve(always(row.answer, times=1))) == row.ours
    assert Urllib3(serve(always(row.answer, times=1)))() == row.urllib3


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_the_table_gives_a_reason_for_a_difference_and_for_nothing_else(row: Row) -> None:
    assert bool(row.why) == (row.ours != row.urllib3)


def bytes_nobody_asked_for(connected: socket.socket) -> None:
    """Arrive after the answer was read, while the connection is idle."""
    read_request(connected)
    connected.sendall(OK)
    time.sleep(0.1)
    connected.sendall(OK)
    read_request(connected)


SURPLUS = "urllib3 does not look at the bytes that came with the answer: the next call would read them"
KEPT = [
    ("kept", always(OK), 1, 1, ""),
    ("closed by the server", always(OK, times=1), 2, 2, ""),
    ("Connection: close", always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"), 2, 2, ""),
    ("HTTP/1.0", always(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), 2, 2, ""),
    ("bytes while idle", bytes_nobody_asked_for, 2, 2, ""),
    ("bytes behind the answer", always(OK + b"more"), 2, 1, SURPLUS),
    ("a second answer", always(OK + OK), 2, 1, SURPLUS),
]


@pytest.mark.parametrize(("speak", "we_open", "urllib3_opens", "why"), [row[1:] for row in KEPT],
                         ids=[row[0] for row in KEPT])  # fmt: skip
def test_each_client_uses_a_connection_again_where_the_table_says_so(
    serve: Serve, speak: object, we_open: int, urllib3_opens: int, why: str
) -> None:
    assert bool(why) == (we_open != urllib3_opens)
    for connections, client in ((we_open, ours), (urllib3_opens, None)):
        server = serve(speak)
        ask = Urllib3(server) if client is None else lambda server=server: ours(server)
        for _ in range(2):
            assert ask() == Result(200, b"ok", True)
            time.sleep(0.3)  # what the server does meanwhile has arrived
        assert server.connections == connections


def test_a_server_that_hangs_answers_neither(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    with pytest.raises(http.CallFailed):
        call(serve(hang), read_timeout=0.3)
    assert Urllib3(serve(hang))(seconds=0.5) is None


def drip(connected: socket.socket, length: int) -> None:
    read_request(connected)
    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    for _ in range(length):
        time.sleep(0.1)
        connected.sendall(b"x")


def test_only_ours_has_a_deadline_for_the_whole_call(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    answered = call(serve(lambda connected: drip(connected, 600)), read_timeout=0.3)
    assert (answered.status, answered.complete) == (200, False)
    dripping = Urllib3(serve(lambda connected: drip(connected, 25)))
    assert dripping(seconds=2.0) == Result(200, b"x" * 25, True)  # 2.5 s: its limit is one per read


def test_of_two_headers_with_one_name_we_take_the_last_and_urllib3_both(serve: Serve) -> None:
    answer = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nRetry-After: 8\r\nContent-Length: 0\r\n\r\n"
    assert call(serve(always(answer))).headers["retry-after"] == "8"
    pool = urllib3.HTTPConnectionPool("127.0.0.1", serve(always(answer)).port)
    assert pool.urlopen("POST", "/", retries=False).headers["retry-after"] == "7, 8"
