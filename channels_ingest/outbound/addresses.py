"""The guard against SSRF: which URLs may be called, and which addresses a connection may go to.

A name is resolved once per connection. Every address that it has must be public. The connection
goes to an address that was checked; the name is used for ``Host`` and TLS only. The setting
``ALLOW_PRIVATE_OUTBOUND`` lifts the guard.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Collection
from typing import NamedTuple

from channels_ingest.outbound import lookups

# Ports that may be called, unless the setting ``OUTBOUND_PORTS`` names others. More: a channel's
# URL can reach other services of a public host. Fewer: bots behind 8443 cannot be called.
PORTS = (443, 8443)

# IPv6 addresses that wrap an IPv4 address, for translation between both.
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not public: IETF protocol assignments and IPv6 site-local, though older Pythons say so; Teredo and
# 6to4, because their relays pass on to any IPv4 address.
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10", "2001::/32", "2002::/16")))
# A URL with a leading space or a control character is refused: ``urlsplit`` drops some of them
# silently. Other characters that a path cannot hold are percent-encoded.
REFUSED = re.compile(r"^ |[\x00-\x1f\x7f]")
# Host and port of a URL; a user or a password does not match.
AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+(?:%[\w.~-]+)?)\]|(?P<name>[^\s:@%\[\]\\]+))(?::(?P<port>[0-9]*))?")
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
PATH_SAFE = "/:@!$&'()*+,;=~"  # characters of a path that stay as they are
STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")  # a % that begins no encoded byte


class AddressRefused(Exception):
    """The guard refused a URL, or the address that its host has."""


class Target(NamedTuple):
    """Where a call goes. ``path`` includes the query; ``authority`` is the ``Host`` header."""

    secure: bool
    host: str
    port: int
    path: str
    authority: str


def check_url(url: str, allow_private: bool, ports: Collection[int] = PORTS) -> Target:
    """Parse a URL that is to be called. Raises ``AddressRefused``.

    ``allow_private``: plain http and any port are allowed, as private addresses are
    (``ALLOW_PRIVATE_OUTBOUND``). The address of the host is not checked here but at each
    connection, by ``public_addresses``.
    """
    try:
        target = None if REFUSED.search(url) else _read_url(url)
    except ValueError:
        target = None
    if target is None:
        raise AddressRefused("not a URL that may be called")
    if not target.secure and not allow_private:
        raise AddressRefused("plain http is refused")
    if target.port not in ports and not allow_private:
        raise AddressRefused(f"port {target.port} is not one of OUTBOUND_PORTS")
    return target


def _read_url(url: str) -> Target | None:
    """Return where a URL leads.

    Return None or raise ``ValueError`` for another scheme, credentials, or a bad host.
    """
    parts = urllib.parse.urlsplit(url)
    found = AUTHORITY.fullmatch(parts.netloc)
    if parts.scheme not in ("https", "http") or found is None:
        return None
    host = _ipv6(found["six"]) if found["six"] else _host_name(found["name"])
    standard = 443 if parts.scheme == "https" else 80
    port = parts.port or standard
    authority = f"[{host.partition('%')[0]}]" if found["six"] else host
    path = _quote(parts.path or "/", PATH_SAFE) + (f"?{_quote(parts.query, PATH_SAFE + '?')}" if parts.query else "")
    return Target(parts.scheme == "https", host, port, path, authority if port == standard else f"{authority}:{port}")


def _ipv6(literal: str) -> str:
    """Return an IPv6 address in lower case; its zone follows ``%``, as sockets expect it."""
    address, _, zone = literal.replace("%25", "%", 1).partition("%")
    ipaddress.IPv6Address(address)
    return address.lower() + (f"%{zone}" if zone else "")


def _host_name(name: str) -> str:
    """Return a name in lower case and ASCII.

    Raises ``ValueError`` if versions of IDNA encode it differently: it could mean two hosts.
    """
    host = name.lower()
    if not host.isascii():
        host = host.encode("idna").decode()
        if host.encode().decode("idna") != name.lower():
            raise ValueError("an ambiguous name")
    if not HOST.fullmatch(host):
        raise ValueError("not a host")
    return host


def _quote(text: str, safe: str) -> str:
    """Percent-encode what is not encoded yet.

    A text with a stray % counts as not encoded: then each % of it is encoded.
    """
    return urllib.parse.quote(text, safe=safe if STRAY_PERCENT.search(text) else safe + "%")


def public_addresses(host: str, port: int, seconds: float = lookups.SECONDS) -> list[str]:
    """Return the first address of ``host``. Raises ``AddressRefused`` if any is not public.

    One is enough: a name with a public and a private address is an attack or a mistake.
    """
    addresses = lookups.addresses_of(host, port, seconds)
    if not all(map(is_public, addresses)):
        raise AddressRefused("a private address is refused")
    return addresses[:1]


def is_public(address: str) -> bool:
    """Return True unless it is loopback, private, link-local, shared, reserved or multicast.

    An IPv6 address that wraps an IPv4 address is judged by the latter.
    """
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped
        if wrapped is not None:
            return is_public(str(wrapped))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in net for net in NOT_PUBLIC)
