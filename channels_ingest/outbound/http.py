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
import re
import socket
import time
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from django.conf import settings

from channels_ingest.outbound.connection import NotConnected, Pool, ProtocolError
from channels_ingest.outbound.deadlines import Watch
from conversations.contracts import Deferred, Failed, Outcome, Rejected, Scope, Sent, Struct, Unknown

CONNECT_SECONDS = 3.0
SERVERS = 256  # whose connections are kept
RETRY_AFTER_CAP_SECONDS = 3600.0
# Where a 429 doesn't say how long.
RETRY_AFTER_SECONDS = 5.0
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not public either, though older Pythons say so: IETF assignments, site-local.
LEFT_OUT = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("fec0::/10"))
# Statuses that say something of the whole channel rather than of this reply.
CHANNEL_STATUSES = frozenset({401, 403, 404, 405, 410})

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # an empty one is announced too
FRAMING = frozenset({"content-length", "transfer-encoding", "expect"})  # what says where a request ends
METHOD = re.compile(r"[A-Z]+")
TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
LINE_END = re.compile(r"[\r\n\0]")
# A URL with these is refused; what else cannot stand in a path is percent-encoded.
UNREADABLE = re.compile(r"^ |[\x00-\x1f\x7f]")
AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+(?:%[\w.~-]+)?)\]|(?P<name>[^\s:@%\[\]\\]+))(?::(?P<port>[0-9]*))?")
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
PATH_SAFE = "/:@!$&'()*+,;=~"
STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


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


class AddressRefused(Exception):
    """The guard: a private address, or plain http to a public one."""


class RequestRefused(Exception):
    """What was to be sent can't be written as HTTP."""


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

    Raises ``CallFailed``; any answer, whatever its status, is returned. Its status stands once it has been read, also
    where the rest is cut or is no HTTP: that is not ``complete``.
    """
    private = settings.ALLOW_PRIVATE_OUTBOUND if allow_private is None else allow_private
    watch = Watch(time.monotonic() + CONNECT_SECONDS + read_timeout)
    try:
        target = _target(url, private)
        request = _request(method, target, headers, body)
        answer = _pool(target.secure, target.host, target.port, private).ask(request, watch, CONNECT_SECONDS)
    except AddressRefused as error:
        raise CallFailed(Rejected(reason=str(error), scope=Scope.CHANNEL)) from None
    except RequestRefused as error:
        raise CallFailed(Rejected(reason=str(error))) from None
    except NotConnected as error:
        raise CallFailed(Failed(reason=f"no connection: {type(error.__cause__).__name__}")) from None
    except (ProtocolError, TimeoutError) as error:
        raise CallFailed(Unknown(reason=f"no answer: {type(error).__name__}")) from None
    finally:
        watch.end()
    return Answered(*answer)


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


# ---------------------------------------------------------------- the guard


class Target(NamedTuple):
    """Where a call goes. ``authority`` is for ``Host``; ``path`` has the query with it."""

    secure: bool
    host: str
    port: int
    path: str
    authority: str


def check_url(url: str, allow_private: bool) -> Target:
    """https to a named host; plain http only where private addresses are allowed. Raises ``AddressRefused``."""
    try:
        target = None if UNREADABLE.search(url) else _read_url(url)
    except ValueError:
        target = None
    if target is None:
        raise AddressRefused("not a URL that may be called")
    if not target.secure and not allow_private:
        raise AddressRefused("plain http is refused")
    return target


def _read_url(url: str) -> Target | None:
    """None, or ``ValueError``: no http or https URL, or one with credentials."""
    parts = urllib.parse.urlsplit(url)
    found = AUTHORITY.fullmatch(parts.netloc)
    if parts.scheme not in ("https", "http") or found is None:
        return None
    host = _six(found["six"]) if found["six"] else _host_name(found["name"])
    standard = 443 if parts.scheme == "https" else 80
    port = parts.port or standard
    authority = f"[{host.partition('%')[0]}]" if found["six"] else host
    path = _quoted(parts.path or "/", PATH_SAFE) + (f"?{_quoted(parts.query, PATH_SAFE + '?')}" if parts.query else "")
    return Target(parts.scheme == "https", host, port, path, authority if port == standard else f"{authority}:{port}")


def _six(literal: str) -> str:
    """In lower case, with ``%`` before its zone as sockets want it. Raises ``ValueError``."""
    address, _, zone = literal.replace("%25", "%", 1).partition("%")
    ipaddress.IPv6Address(address)
    return address.lower() + (f"%{zone}" if zone else "")


def _host_name(name: str) -> str:
    """In lower case and ASCII. Raises ``ValueError``, also for a name that another rule of IDNA reads otherwise."""
    host = name.lower()
    if not host.isascii():
        host = host.encode("idna").decode()
        if host.encode().decode("idna") != name.lower():
            raise ValueError("a name that is read in two ways")
    if not HOST.fullmatch(host):
        raise ValueError("not a host")
    return host


def _quoted(text: str, safe: str) -> str:
    """Percent-encoded where it is not so already."""
    return urllib.parse.quote(text, safe=safe if STRAY_PERCENT.search(text) else safe + "%")


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


# ---------------------------------------------------------------- the wire


def _request(method: str, target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """Head and body together. Raises ``RequestRefused`` for what would end a line before its time."""
    if not METHOD.fullmatch(method):
        raise RequestRefused("a method that cannot be sent")
    sent = {"host": target.authority, "accept-encoding": "identity", "user-agent": "webhook-bot/1"}
    sent |= {name.lower(): value for name, value in headers.items()}
    if FRAMING & sent.keys():
        raise RequestRefused("a header that cannot be sent")
    if body or method in WITH_BODY:
        sent["content-length"] = str(len(body))
    lines = [f"{method} {target.path} HTTP/1.1"]
    for name, value in sent.items():
        if not TOKEN.fullmatch(name) or LINE_END.search(value):
            raise RequestRefused("a header that cannot be sent")
        lines.append(f"{name}: {value}")
    try:
        return "\r\n".join((*lines, "", "")).encode("latin-1") + body
    except UnicodeEncodeError:
        raise RequestRefused("a header that cannot be sent") from None


def _the_host_itself(host: str, port: int) -> str:
    """Without the guard, for servers of our own."""
    return host


@functools.lru_cache(maxsize=SERVERS)
def _pool(secure: bool, host: str, port: int, private: bool) -> Pool:
    """Keep-alive connections of this process to one server. One that is forgotten here closes them when it is free."""
    return Pool(secure, host, port, _the_host_itself if private else public_address)


os.register_at_fork(after_in_child=_pool.cache_clear)
