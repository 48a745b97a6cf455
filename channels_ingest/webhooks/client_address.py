"""The address of a client: the key of every limit per address, behind routers or without one."""

from __future__ import annotations

import ipaddress
import re

from django.conf import settings
from django.http import HttpRequest

# An address with a port, or an IPv6 address in brackets: 192.0.2.1:443, [2001:db8::1]:443.
WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]*)?|([0-9.]+):[0-9]*")
NOBODY = "0.0.0.0"  # the key of all clients whose address cannot be read  # noqa: S104


def client_address(request: HttpRequest) -> str:
    """Return the client's IPv4 address, or the first address of its IPv6 /64.

    Behind routers it is the ``ROUTER_HOPS``-th address from the right in ``CLIENT_ADDRESS_HEADER``:
    that one the outermost router of ours wrote, while anybody can write the addresses before it.
    If it is not an address, the router's own counts. One IPv6 customer has a whole /64.
    """
    peer = request.META.get("REMOTE_ADDR", "")
    forwarded = ""
    if settings.SECURE_PROXY_SSL_HEADER:
        hops = getattr(settings, "ROUTER_HOPS", 1)
        addresses = request.META.get(getattr(settings, "CLIENT_ADDRESS_HEADER", "HTTP_X_FORWARDED_FOR"), "")
        forwarded = addresses.rsplit(",", hops)[-hops:][0]
    return parse_address(forwarded) or parse_address(peer) or NOBODY


def parse_address(written: str) -> str:
    """Return an address without port, brackets and zone, or '' if it is none.

    IPv6 comes as the first address of its /64; an IPv4 address inside IPv6 comes as IPv4.
    """
    bare = written.strip()
    if match := WITH_PORT.fullmatch(bare):
        bare = match[1] or match[2] or ""
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address), 64), strict=False).network_address)
