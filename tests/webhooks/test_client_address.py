"""Whose address counts: an address that a client cannot choose."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from channels_ingest.webhooks.client_address import client_address


@pytest.mark.parametrize(
    ("remote", "forwarded", "behind_router", "address"),
    [
        ("192.0.2.1", "", False, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", False, "192.0.2.1"),  # anybody can write this header
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", True, "203.0.113.9"),  # the router's own is the last
        ("2001:db8:1:2:3::4", "", False, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2:9::9", True, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "", False, "192.0.2.1"),  # a socket for both kinds of address
        ("10.0.0.1", "", True, "10.0.0.1"),
        ("", "", False, ""),
        ("10.0.0.1", "x", True, ""),
    ],
)
def test_whose_address_counts(remote: str, forwarded: str, behind_router: bool, address: str, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if behind_router else None
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert client_address(RequestFactory().get("/", REMOTE_ADDR=remote, headers=headers)) == address
