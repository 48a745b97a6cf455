"""Outbound HTTP against real sockets: what is kept, what is read, and what a broken answer means."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from channels_ingest.outbound import connection, http
from conversations.contracts import Deferred, Unknown
from tests.kit.http_servers import OK, Serve, always, call, failure, hang
from tests.outbound.broken_servers import CUT, ENDLESS, NO_ANSWERS, OVER_CAP, STRICT, WHOLE, Row

# ---------------------------------------------------------------- kept connections


def test_two_calls_use_one_connection_and_head_and_body_leave_together(serve: Serve) -> None:
    seen: list[bytes] = []

    def speak(connected: socket.socket) -> None:
        while data := connected.recv(65536):
            seen.append(data)
            connected.sendall(OK)

    server = serve(speak)
    for body in (b"one", b""):
        answer = http.Answered(status=200, headers={"content-length": "2"}, body=b"ok", complete=True)
        assert call(server, body, **{"X-Id": "7"}) == answer
    assert server.connections == 1
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [b"POST /bot?x=1 HTTP/1.1", b"host: 127.0.0.1:%d" % server.port,
                                   b"accept-encoding: identity", b"user-agent: webhook-bot/1", b"x-id: 7",
                                   b"content-length: 3"]  # fmt: skip
    assert body == b"one"
    assert seen[1].endswith(b"content-length: 0\r\n\r\n")


def test_a_kept_connection_that_the_server_closed_meanwhile_is_not_written_to(serve: Serve) -> None:
    server = serve(always(OK, times=1))
    for _ in range(3):
        assert call(server).body == b"ok"
        assert server.hung_up.acquire(timeout=10)
    assert server.connections == 3


def test_a_kept_connection_on_which_bytes_arrived_is_not_written_to(serve: Serve) -> None:
    sent = threading.Event()

    def speak(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(OK)
        if server.connections == 1:
            assert first_read.wait(10)
            connected.sendall(OK)  # nobody asked
            sent.set()
        connected.recv(65536)

    first_read = threading.Event()
    server = serve(speak)
    call(server)
    first_read.set()
    assert sent.wait(10)
    assert call(server).complete
    assert server.connections == 2


def test_a_connection_that_was_idle_too_long_is_opened_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(always(OK))
    call(server)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.0)
    call(server)
    assert server.connections == 2
    assert server.hung_up.acquire(timeout=10)  # the first one was closed


NOT_KEPT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    OK + b"more",
    OK + OK,
]


@pytest.mark.parametrize("answer", NOT_KEPT)
def test_a_connection_is_not_kept_when_the_server_says_so_or_says_too_much(serve: Serve, answer: bytes) -> None:
    server = serve(always(answer))
    for _ in range(2):
        answered = call(server)
        assert (answered.body, answered.complete) == (b"ok", True)
    assert server.connections == 2


def test_so_many_connections_are_kept_and_no_more(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "POOL_CONNECTIONS", 2)
    together = threading.Barrier(5)

    def speak(connected: socket.socket) -> None:
        connected.recv(65536)
        together.wait(10)
        connected.sendall(OK)
        connected.recv(65536)

    server = serve(speak)
    with ThreadPoolExecutor(5) as threads:
        assert all(answered.complete for answered in threads.map(lambda _: call(server), range(5)))
    assert all(server.hung_up.acquire(timeout=10) for _ in range(3))
    assert not server.hung_up.acquire(timeout=0.2)


def test_each_of_many_threads_has_the_answer_to_its_own_call(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 600.0)

    def speak(connected: socket.socket) -> None:
        while data := connected.recv(65536):
            body = data.partition(b"\r\n\r\n")[2]
            connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    server = serve(speak)
    bodies = [b"%d" % number for number in range(1000)]
    with ThreadPoolExecutor(8) as threads:
        assert [answered.body for answered in threads.map(lambda body: call(server, body), bodies)] == bodies
    assert server.connections <= 8


def test_a_forgotten_server_has_its_connections_closed(serve: Serve) -> None:
    server = serve(always(OK))
    call(server)
    http._pool.cache_clear()
    assert server.hung_up.acquire(timeout=10)


def test_a_forked_child_starts_with_no_connection(serve: Serve) -> None:
    call(serve(always(OK)))
    assert http._pool.cache_info().currsize > 0
    child = os.fork()
    if child == 0:
        os._exit(http._pool.cache_info().currsize)
    assert os.waitpid(child, 0)[1] == 0


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("in_bits", [False, True])
@pytest.mark.parametrize("row", WHOLE, ids=lambda row: row.name)
def test_an_answer_is_read_whole(serve: Serve, row: Row, in_bits: bool) -> None:
    def speak(connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.recv(65536)
        for at in range(len(row.answer)) if in_bits else ():
            connected.sendall(row.answer[at : at + 1])
        if not in_bits:
            connected.sendall(row.answer)

    answered = call(serve(speak))
    assert (answered.status, answered.body, answered.complete) == row.ours
    assert "link" not in answered.headers
    assert "x-trailer" not in answered.headers


def test_header_names_are_in_lower_case_and_of_equal_ones_the_last_counts(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-A:  one \r\nx-a: caf\xe9\r\nContent-Length: 0\r\n\r\n"
    assert call(serve(always(head))).headers == {"x-a": "caf\xe9", "content-length": "0"}


@pytest.mark.parametrize("row", [*CUT, *STRICT], ids=lambda row: row.name)
def test_the_status_of_an_answer_that_is_cut_or_broken_stands(serve: Serve, row: Row) -> None:
    answered = call(serve(always(row.answer, times=1)))
    assert (answered.status, answered.body, answered.complete) == row.ours


@pytest.mark.parametrize("row", OVER_CAP, ids=lambda row: row.name)
def test_an_answer_over_the_cap_is_not_whole_and_its_connection_is_closed(serve: Serve, row: Row) -> None:
    server = serve(always(row.answer))
    answered = call(server)
    assert (answered.status, answered.body, answered.complete) == row.ours
    assert server.hung_up.acquire(timeout=10)


@pytest.mark.parametrize(("more", "complete"), [(0, True), (1, False)])
def test_the_cap_itself_is_allowed(serve: Serve, more: int, complete: bool) -> None:
    length = connection.ANSWER_CAP + more
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    assert call(serve(always(head + b"x" * length))).complete is complete


@pytest.mark.parametrize("row", NO_ANSWERS, ids=lambda row: row.name)
def test_a_malformed_response_is_an_unknown_outcome(serve: Serve, row: Row) -> None:
    assert failure(serve(always(row.answer, times=1))) == Unknown(reason="no answer: ProtocolError")


@pytest.mark.parametrize("row", ENDLESS, ids=lambda row: row.name)
def test_an_endless_response_is_cut_off_and_its_status_stands(serve: Serve, row: Row) -> None:
    server = serve(always(row.answer, times=1))
    answered = call(server)
    assert (answered.status, answered.body, answered.complete) == row.ours
    assert server.hung_up.acquire(timeout=10)


def test_lines_that_end_in_a_line_feed_alone_are_read(serve: Serve) -> None:
    answered = call(serve(always(b"HTTP/1.1 503 Later\nRetry-After: 7\nContent-Length: 2\n\nno")))
    assert http.outcome(answered) == Deferred(seconds=7, reason="HTTP 503")
    assert (answered.body, answered.complete) == (b"no", True)


def test_a_server_that_hangs_is_cut_off_as_unknown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    server = serve(hang)
    assert failure(server, read_timeout=0.3) == Unknown(reason="no answer: TimeoutError")
    assert server.hung_up.acquire(timeout=10)


def test_a_kept_connection_is_cut_off_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)

    def speak(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(OK)
        connected.recv(65536)
        while True:
            connected.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if connected.recv(1) == b"":
                return

    server = serve(speak)
    call(server)
    assert failure(server, read_timeout=0.3) == Unknown(reason="no answer: TimeoutError")
    assert server.connections == 1


def test_a_server_that_never_reads_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    done = threading.Event()
    server = serve(lambda connected: done.wait(30) and None)
    with pytest.raises(http.CallFailed) as failed:
        call(server, b"x" * 30_000_000, read_timeout=0.3)
    done.set()
    assert failed.value.outcome == Unknown(reason="no answer: TimeoutError")
