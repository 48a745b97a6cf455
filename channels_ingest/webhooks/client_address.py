"""The address of a client, behind our router or without one."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """Return the client's IPv4 address, or the /64 of its IPv6 address; '' if there is none.

    Behind a router it is the last address of ``X-Forwarded-For``, which the router wrote itself;
    anybody can write the others. One IPv6 customer has a whole /64.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if settings.SECURE_PROXY_SSL_HEADER:
        address = (request.META.get("HTTP_X_FORWARDED_FOR") or address).rpartition(",")[2].strip()
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
