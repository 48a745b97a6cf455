"""Whose address counts: an address that a client cannot choose."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory
from hypothesis import assume, given
from hypothesis import strategies as st

from channels_ingest.webhooks.client_address import NOBODY, client_address, parse_address
from tests.kit.running import free_port, running, until


@pytest.mark.parametrize(("remote", "forwarded", "behind_router", "address"), [
    ("192.0.2.1", "", False, "192.0.2.1"),
    ("192.0.2.1", "203.0.113.9", False, "192.0.2.1"),  # anybody can write this header
    ("10.0.0.1", "198.51.100.1, 203.0.113.9", True, "203.0.113.9"),  # the router's own is the last
    ("2001:db8:1:2:3::4", "", False, "2001:db8:1:2::"),
    ("2001:db8:1:2:3::4", "2001:db8:1:2:9::9", True, "2001:db8:1:2::"),
    ("::ffff:192.0.2.1", "", False, "192.0.2.1"),  # a socket for both kinds of address
    ("10.0.0.1", "", True, "10.0.0.1"),
    ("", "", False, NOBODY),
    ("10.0.0.1", "x", True, "10.0.0.1"),
    ("10.0.0.1", "203.0.113.9:50123", True, "203.0.113.9"),  # as Azure writes it
    ("10.0.0.1", "198.51.100.1, ::ffff:203.0.113.9", True, "203.0.113.9"),
    ("10.0.0.1", "[::ffff:203.0.113.9]:50123", True, "203.0.113.9"),
    ("10.0.0.1", "[2001:db8:1:2:3::4]:50123", True, "2001:db8:1:2::"),
    ("10.0.0.1", "[2001:db8:1:2:3::4]", True, "2001:db8:1:2::"),
    ("10.0.0.1", "198.51.100.1,", True, "10.0.0.1"),  # an empty second header
    ("fe80::1%eth0", "", False, "fe80::"),
    ("10.0.0.1", "1.2.3.4" * 1000, True, "10.0.0.1"),
])  # fmt: skip
def test_whose_address_counts(remote: str, forwarded: str, behind_router: bool, address: str, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if behind_router else None
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert client_address(RequestFactory().get("/", REMOTE_ADDR=remote, headers=headers)) == address


@pytest.mark.parametrize(("forwarded", "address"), [
    ("6.6.6.6, 203.0.113.9, 198.51.100.1", "203.0.113.9"),
    ("203.0.113.9, 198.51.100.1", "203.0.113.9"),
    ("203.0.113.9", "203.0.113.9"),
])  # fmt: skip
def test_of_two_routers_the_outer_one_wrote_the_clients_address(forwarded: str, address: str, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.ROUTER_HOPS = 2
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": forwarded})
    assert client_address(request) == address


# ---------------------------------------------------------------- what the real server makes of header names

SERVED = """
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from channels_ingest.webhooks.client_address import client_address

settings.configure(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"), CLIENT_ADDRESS_HEADER=%r)

def application(environ, start_response):
    start_response("200 OK", [])
    return [client_address(WSGIRequest(environ)).encode()]
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The ports of two granians, by the header in which they look for the client's address."""
    folder = tmp_path_factory.mktemp("addresses")
    ports = {"HTTP_X_FORWARDED_FOR": free_port(), "HTTP_CLIENTADDRESS": free_port()}
    env = {**os.environ, "PYTHONPATH": str(folder)}
    serving = [running(granian(name, port, folder), env, folder / "log") for name, port in ports.items()]
    with serving[0], serving[1]:
        until(lambda: all(map(listens, ports.values())), 30)
        yield ports


def granian(name: str, port: int, folder: Path) -> list[str]:
    (folder / f"{name.lower()}.py").write_text(SERVED % name)
    arguments = ["--interface", "wsgi", "--port", str(port), "--http", "1", f"{name.lower()}:application"]
    return [sys.executable, "-m", "granian", *arguments]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def seen(port: int, *lines: str) -> str:
    """The client's address that the application reads from these header lines."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall("\r\n".join(("GET / HTTP/1.1", "Host: h", "Connection: close", *lines, "", "")).encode())
        return connection.makefile("rb").read().rpartition(b"\r\n")[2].decode()


def test_a_clients_own_headers_do_not_choose_its_address(servers: dict[str, int]) -> None:
    port = servers["HTTP_X_FORWARDED_FOR"]
    assert seen(port, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9") == "203.0.113.9"
    assert seen(port, "X-Forwarded-For: 6.6.6.6, 203.0.113.9") == "203.0.113.9"
    assert seen(port, "X_Forwarded_For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9") == "203.0.113.9"


def test_a_name_with_underscores_replaces_the_routers_header_unless_that_has_no_dash(servers: dict[str, int]) -> None:
    """Why routers must drop such names, or name their own header without a dash.

    Granian passes on no original names: of two that WSGI writes alike, the one that appears last
    replaces the other. Once the first assertion fails, granian drops them, and the documents can.
    """
    headers = ("X-Forwarded-For: 203.0.113.9", "X_Forwarded_For: 6.6.6.6")
    assert seen(servers["HTTP_X_FORWARDED_FOR"], *headers) == "6.6.6.6"
    lines = ("ClientAddress: 203.0.113.9", "Client_Address: 6.6.6.6", "Client-Address: 6.6.6.6")
    assert seen(servers["HTTP_CLIENTADDRESS"], *lines) == "203.0.113.9"


V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6)


@given(written=st.one_of(st.text(max_size=60), st.from_regex(r"\[?[0-9a-f:.]{0,45}\]?(:[0-9]{0,6})?", fullmatch=True)))
def test_whatever_is_written_gives_an_address_or_none(written: str) -> None:
    found = parse_address(written)
    assert found == "" or str(ipaddress.ip_address(found)) == found
    assert parse_address(found) == found


@given(address=V4, port=st.integers(0, 65535), spaces=st.sampled_from(["", " ", "\t"]))
def test_each_way_to_write_an_ipv4_address_is_one_client(address: str, port: int, spaces: str) -> None:
    ways = [address, f"{address}:{port}", f"::ffff:{address}", f"[::ffff:{address}]:{port}",
            f"{spaces}{address}{spaces}"]  # fmt: skip
    assert {parse_address(way) for way in ways} == {address}


@given(address=V6.filter(lambda address: not address.ipv4_mapped), neighbour=st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_64_are_one_client(address: ipaddress.IPv6Address, neighbour: int) -> None:
    other = ipaddress.IPv6Address((int(address) >> 64 << 64) + neighbour)
    assume(not other.ipv4_mapped)
    ways = [str(address), f"[{address}]", f"[{address}]:443", f"{address}%eth0", address.exploded, str(other)]
    assert len({parse_address(way) for way in ways}) == 1
