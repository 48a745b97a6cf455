"""One outbound call, and the only map from HTTP status to outcome.

Where a call fails decides what is known: before the connection stood, nothing was taken
(``Failed``); once the request may have been written, nobody knows (``Unknown``).

Guard against SSRF: a name is resolved once per connection, every address that it has must be
public, and the connection goes to the address that was looked at, with the name kept for ``Host``
and TLS. No redirects, no credentials forwarded, no proxy. ``ALLOW_PRIVATE_OUTBOUND`` lifts it.
"""

from __future__ import annotations

import email.utils
import functools
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

from channels_ingest.deadlines import Handle, Watch
from conversations.contracts import Deferred, Failed, Outcome, Rejected, Scope, Sent, Struct, Unknown

CONNECT_SECONDS = 3.0
IDLE_SECONDS = 5.0  # a connection that rested longer may be dead at the other end: not used again
ANSWER_CAP = 1024 * 1024
POOL_CONNECTIONS = 64
SERVERS = 256  # whose connections are kept
NEVER_AGAIN = urllib3.Retry.from_int(False, redirect=False)
RETRY_AFTER_CAP_SECONDS = 3600.0
# Where a 429 doesn't say how long.
RETRY_AFTER_SECONDS = 5.0
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not public either, though older Pythons say so: IETF assignments, site-local.
LEFT_OUT = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("fec0::/10"))
# Statuses that say something of the whole channel rather than of this reply.
CHANNEL_STATUSES = frozenset({401, 403, 404, 405, 410})


_calling = threading.local()  # the watch of this thread's call


class Answered(Struct, frozen=True):
    """What came back. ``complete``: the body arrived whole and under the cap. Header names in lower case."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    complete: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class CallFailed(Exception):
    """No answer. ``outcome`` says what that means for a send; its words never hold a URL, which can hold a token."""

    def __init__(self, outcome: Failed | Unknown | Rejected) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class NotConnected(Exception):
    """The connection never stood: nothing was written."""


class AddressRefused(Exception):
    """The guard: a private address, or plain http to a public one."""


def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes = b"",
    allow_private: bool | None = None,
    read_timeout: float = 30.0,
) -> Answered:
    """One request, never repeated, cut off after ``CONNECT_SECONDS`` and ``read_timeout`` together.

    Raises ``CallFailed``; any answer, whatever its status, is returned.
    """
    private = settings.ALLOW_PRIVATE_OUTBOUND if allow_private is None else allow_private
    watch = _calling.watch = Watch(time.monotonic() + CONNECT_SECONDS + read_timeout)
    try:
        target = _target(url, private)
        response = _pool(target.secure, target.host, target.port, private).urlopen(
            method,
            target.path,
            body=body or None,
            headers={"accept-encoding": "identity", "user-agent": "webhook-bot/1", **headers},
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_timeout),
            retries=NEVER_AGAIN,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
        )
        return _read(response, watch)
    except AddressRefused as error:
        raise CallFailed(Rejected(reason=str(error), scope=Scope.CHANNEL)) from None
    except NotConnected as error:
        raise CallFailed(Failed(reason=f"no connection: {type(error.__cause__).__name__}")) from None
    except urllib3.exceptions.HTTPError as error:
        raise CallFailed(Unknown(reason=f"no answer: {type(error).__name__}")) from None
    finally:
        watch.end()


def outcome(answered: Answered, platform_id: str = "") -> Outcome:
    """What a status means where a platform says nothing more of its own."""
    status, reason = answered.status, f"HTTP {answered.status}"
    if answered.ok:
        return Sent(platform_id=platform_id)
    if status == 429 or (status == 503 and "retry-after" in answered.headers):
        return Deferred(seconds=retry_after(answered), reason=reason)
    if status in CHANNEL_STATUSES or 300 <= status < 400:
        return Rejected(reason=reason, scope=Scope.CHANNEL)
    if 400 <= status < 500:
        return Rejected(reason=reason)
    return Unknown(reason=reason)


def retry_after(answered: Answered) -> float:
    """Seconds to wait, from ``Retry-After`` in either form, between nothing and an hour."""
    value = answered.headers.get("retry-after", "").strip()
    try:
        seconds = float(value) if value[:1].isdigit() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return RETRY_AFTER_SECONDS
    return min(max(seconds, 0.0), RETRY_AFTER_CAP_SECONDS)


def _until(http_date: str) -> float:
    return email.utils.parsedate_to_datetime(http_date).timestamp() - time.time()


def _read(response: urllib3.BaseHTTPResponse, watch: Watch) -> Answered:
    """The body under the cap, as far as it came before the deadline; the status stands even when the body is cut."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    body, complete = bytearray(), False
    try:
        while len(body) <= ANSWER_CAP:
            chunk = response.read1(65536, decode_content=False)
            if not chunk:
                complete = watch.end()  # before the connection can serve another call
                break
            body += chunk
    except (urllib3.exceptions.HTTPError, OSError):
        pass
    if complete:
        response.release_conn()
    else:
        response.close()
    return Answered(status=response.status, headers=headers, body=bytes(body[:ANSWER_CAP]), complete=complete)


# ---------------------------------------------------------------- the guard


class Target(NamedTuple):
    """Where a call goes. ``path`` has the query with it."""

    secure: bool
    host: str
    port: int
    path: str


def check_url(url: str, allow_private: bool) -> Target:
    """https to a named host; plain http only where private addresses are allowed. Raises ``AddressRefused``."""
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        raise AddressRefused("not a URL that may be called") from None
    if parts.scheme not in ("https", "http") or not parts.host or parts.auth:
        raise AddressRefused("not a URL that may be called")
    if parts.scheme == "http" and not allow_private:
        raise AddressRefused("plain http is refused")
    secure = parts.scheme == "https"
    return Target(secure, parts.host.strip("[]"), parts.port or (443 if secure else 80), parts.request_uri)


_target = functools.lru_cache(maxsize=1024)(check_url)


def public_address(host: str, port: int) -> str:
    """The first address of ``host``; refused when any of its addresses is not public."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if not is_public(address):
            raise AddressRefused("a private address is refused")
    return found[0]


def is_public(address: str) -> bool:
    """Not loopback, private, link-local, shared, reserved or multicast, also where IPv6 wraps IPv4."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if ip in NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in net for net in LEFT_OUT)


class _Guarded:
    """Mixed into a connection: looks at the address before connecting, and marks what failed before writing."""

    rested_at = 0.0
    handle: Handle | None = None  # by which the watch of a call cuts it
    _writes: list[bytes]  # of a request, until it is whole
    _pieces = 1

    def request(self, method: str, url: str, body: bytes | None = None, *args: Any, **options: Any) -> None:
        """Head and body leave together: two writes would be a packet and a wake-up more, on both sides."""
        self._writes, self._pieces = [], 2 if body else 1
        super().request(method, url, body, *args, **options)  # type: ignore[misc]

    def send(self, data: bytes) -> None:
        self._writes.append(data)
        if len(self._writes) == self._pieces:
            super().send(b"".join(self._writes))  # type: ignore[misc]

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except AddressRefused:
            raise
        except Exception as error:
            raise NotConnected from error

    def close(self) -> None:
        self.handle = None
        super().close()  # type: ignore[misc]

    def _new_conn(self) -> socket.socket:
        address = self.find_address(self.host, self.port)  # type: ignore[attr-defined]
        sock = create_connection((address, self.port), self.timeout, socket_options=self.socket_options)  # type: ignore[attr-defined]
        self.handle = Handle(sock)
        _calling.watch.hold(self.handle)
        return sock

    @staticmethod
    def find_address(host: str, port: int) -> str:
        return public_address(host, port)


class _Open(_Guarded):
    """The same without the guard, for servers of our own."""

    @staticmethod
    def find_address(host: str, port: int) -> str:
        return host


class _Rested:
    """Mixed into a pool: a connection that rested too long is opened anew before it is used."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        if time.monotonic() - connection.rested_at > IDLE_SECONDS:
            connection.close()
        if connection.handle is not None:
            _calling.watch.hold(connection.handle)
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.rested_at = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


_TLS = functools.cache(ssl.create_default_context)
_PLAIN = {True: type("Plain", (_Open, HTTPConnection), {}), False: type("Plain", (_Guarded, HTTPConnection), {})}
_SECURE = {True: type("Secure", (_Open, HTTPSConnection), {}), False: type("Secure", (_Guarded, HTTPSConnection), {})}


class _PlainPool(_Rested, HTTPConnectionPool):
    pass


class _SecurePool(_Rested, HTTPSConnectionPool):
    pass


@functools.lru_cache(maxsize=SERVERS)
def _pool(secure: bool, host: str, port: int, private: bool) -> HTTPConnectionPool:
    """Keep-alive connections of this process to one server. One that is forgotten here closes them when it is free."""
    if secure:
        pool: HTTPConnectionPool = _SecurePool(host, port, maxsize=POOL_CONNECTIONS, block=False, ssl_context=_TLS())
        pool.ConnectionCls = _SECURE[private]
    else:
        pool = _PlainPool(host, port, maxsize=POOL_CONNECTIONS, block=False)
        pool.ConnectionCls = _PLAIN[private]
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)
