"""The guard of outbound calls: where they may go, and that nothing else is ever connected to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from channels_ingest.outbound import addresses, http, lookups
from conversations.contracts import Failed, Rejected, Scope, Unknown
from tests.kit.http_servers import Serve
from tests.kit.running import until

PRIVATE = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
    "2002:808:808::1", "2001:0:4136:e378:8000:63bf:f7f7:f7f7",  # 6to4 and Teredo of 8.8.8.8
]  # fmt: skip
PUBLIC = ["149.154.167.220", "8.8.8.8", "2001:67c:4e8:f004::9", "2606:4700::6810:1", "::ffff:8.8.8.8"]


@pytest.fixture
def listener() -> Iterator[list[Any]]:
    """A local server that writes down every connection, on 127.0.0.1."""
    seen: list[Any] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            seen.append(address)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    seen_with_port = [server.getsockname()[1]]
    yield [seen, seen_with_port[0]]
    server.close()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_called(address: str) -> None:
    assert addresses.is_public(address)


HOSTS = [
    "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]",
    "rebound.example",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_of_a_private_host_is_connected_to(
    host: str, listener: list[Any], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, port = listener
    settings.OUTBOUND_PORTS = [port]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **more: real("127.0.0.1" if "example" in name else name, *rest, **more),
    )
    with pytest.raises(http.CallFailed) as failed:
        http.call("POST", f"https://{host}:{port}/", headers={}, allow_private=False)
    reasons = ("a private address is refused", "not a URL that may be called")
    assert failed.value.outcome in [Rejected(reason=reason, scope=Scope.CHANNEL) for reason in reasons]
    assert seen == []


def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(addresses.AddressRefused):
        addresses.public_addresses("mixed.example", 443)


@pytest.mark.parametrize("port", [22, 80, 25, 6379, 8080, 9443])
def test_only_the_ports_of_https_are_called(port: int, settings: Any) -> None:
    with pytest.raises(http.CallFailed) as failed:
        http.call("GET", f"https://e.org:{port}/", headers={}, allow_private=False)
    reason = f"port {port} is not one of OUTBOUND_PORTS"
    assert failed.value.outcome == Rejected(reason=reason, scope=Scope.CHANNEL)
    settings.OUTBOUND_PORTS = [port]
    assert addresses.check_url(f"https://e.org:{port}/", False, http.allowed_ports()).port == port
    settings.OUTBOUND_PORTS = [443]
    assert addresses.check_url(f"http://e.org:{port}/", True, http.allowed_ports()).port == port


def test_by_default_443_and_8443_are_called() -> None:
    assert [addresses.check_url(f"https://e.org{port}/", False).port for port in ("", ":8443")] == [443, 8443]


@pytest.mark.parametrize("url", [
    "http://example.org/", "file:///etc/passwd", "gopher://e.org", "ftp://e.org/", "https://user:pw@e.org/", "https://",
    "", "//e.org", "https://e.org:port/",
])  # fmt: skip
def test_only_https_without_credentials(url: str) -> None:
    with pytest.raises(http.CallFailed) as failed:
        http.call("GET", url, headers={}, allow_private=False)
    assert isinstance(failed.value.outcome, Rejected)


def test_a_failure_never_quotes_the_url(listener: list[Any]) -> None:
    for port in (1, listener[1]):
        with pytest.raises(http.CallFailed) as failed:
            http.call("POST", f"http://127.0.0.1:{port}/bot123:SECRET/x", headers={}, allow_private=True)
        assert "SECRET" not in str(failed.value) + failed.value.outcome.reason


def test_a_retry_after_in_either_form_is_bounded() -> None:
    def seconds(value: str) -> float:
        return http.retry_after(http.Answered(status=429, headers={"retry-after": value}))

    assert (seconds("7"), seconds("1.5"), seconds("99999999")) == (7, 1.5, 3600)
    assert (seconds("soon"), seconds("-5")) == (http.RETRY_AFTER_SECONDS, http.RETRY_AFTER_SECONDS)
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_retry_after_as_a_date_is_taken_by_the_clock_of_the_platform() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:30 GMT"}
    assert http.retry_after(http.Answered(status=429, headers=headers)) == 30


# ---------------------------------------------------------------- the deadline


def drip(connection: socket.socket, head: bytes) -> None:
    connection.recv(65536)
    connection.sendall(head)
    while True:  # well within the timeout of a read, for ever
        connection.sendall(b"x")
        time.sleep(0.1)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.5)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("private", [True, False])
def test_a_name_whose_look_up_hangs_is_given_up_before_anything_was_sent(
    soon: None, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()  # by the resolver, after the test
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(60) and [])
    try:
        with pytest.raises(http.CallFailed) as failed:
            # A name of its own: callers who ask for the same name share one look-up.
            http.call("POST", f"https://slow-{private}.example/", headers={}, allow_private=private, read_timeout=0.1)
        assert failed.value.outcome == Failed(reason="no connection: TimeoutError")
    finally:
        answered.set()


@pytest.mark.timeout(30)
def test_look_ups_share_a_thread_for_a_name_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answered = threading.Event()

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answered.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    look_ups = lookups.LookUps(most=1)
    for host in ("slow.example", "slow.example", "other.example"):
        with pytest.raises(TimeoutError):
            look_ups.addresses_of(host, 443, 0.01)
    assert asked == ["slow.example"]
    waiting = look_ups._running["slow.example", 443]
    answered.set()
    assert waiting.result(20) == ["8.8.8.8"]
    until(lambda: not look_ups._running, 20)
    assert look_ups.addresses_of("other.example", 443, 20) == ["8.8.8.8"]


@pytest.mark.timeout(30)
def test_a_name_without_addresses_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(http.CallFailed) as failed:
        http.call("POST", "https://none.example/", headers={}, allow_private=False)
    assert failed.value.outcome == Failed(reason="no connection: gaierror")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 20"])
def test_an_answer_whose_head_drips_is_given_up_as_unknown(serve: Serve, soon: None, head: bytes) -> None:
    server = serve(lambda connection: drip(connection, head))
    with pytest.raises(http.CallFailed) as failed:
        http.call("POST", server.url, headers={}, allow_private=True, read_timeout=0.5)
    assert isinstance(failed.value.outcome, Unknown)
    assert server.hung_up.acquire(timeout=10)


HEADS = [
    b"X-Slow: ",
    b"Content-Length: 500\r\n\r\n",
    b"Connection: close\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("head", HEADS)
def test_an_answer_that_drips_after_its_status_keeps_it_and_is_not_whole(serve: Serve, soon: None, head: bytes) -> None:
    server = serve(lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\n" + head))
    answered = http.call("POST", server.url, headers={}, allow_private=True, read_timeout=0.5)
    assert (answered.status, answered.complete) == (200, False)
    assert server.hung_up.acquire(timeout=10)


@pytest.mark.timeout(30)
def test_a_handshake_that_drips_is_given_up_before_anything_was_sent(serve: Serve, soon: None) -> None:
    record = b"\x16\x03\x03\x40\x00"  # a handshake record of 16 kB begins
    server = serve(lambda connection: drip(connection, record))
    with pytest.raises(http.CallFailed) as failed:
        http.call("POST", server.url.replace("http:", "https:"), headers={}, allow_private=True, read_timeout=0.5)
    assert isinstance(failed.value.outcome, Failed)
    assert server.hung_up.acquire(timeout=10)


@pytest.mark.timeout(30)
def test_the_deadline_of_a_call_that_ended_never_cuts_the_next_one_on_its_connection(serve: Serve, soon: None) -> None:
    def answer_twice(connection: socket.socket) -> None:
        for wait in (0.0, 1.5):  # the first call's deadline passes in the middle of the second one
            connection.recv(65536)
            time.sleep(wait)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = serve(answer_twice)
    for read_timeout in (0.5, 5.0):
        answered = http.call("POST", server.url, headers={}, allow_private=True, read_timeout=read_timeout)
        assert (answered.body, answered.complete) == (b"ok", True)
    assert server.connections == 1
