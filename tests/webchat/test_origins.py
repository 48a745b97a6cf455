"""Which web pages may write to a channel, and frame its chat."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from channels_ingest.webchat import origins
from conversations.contracts import ChannelConfig

requests = RequestFactory()


def channel(allowed: Any) -> ChannelConfig:
    return ChannelConfig(id=1, public_id="one", platform="web", tenant_id=1, options={"allowed_origins": allowed})


@pytest.mark.parametrize(("given", "origins_"), [
    ([], []),
    ("", []),
    ("https://shop.example", ["https://shop.example"]),
    ("https://a.example, https://b.example/", ["https://a.example", "https://b.example"]),
    (["https://Shop.Example:443"], ["https://shop.example"]),
    (["http://shop.example:80", "http://shop.example:8080"], ["http://shop.example", "http://shop.example:8080"]),
    ("https://shop.example/path", []),
    ("*", []),
    ("null", []),
    ("https://shop.example; script-src *", ["https://shop.example"][:0]),
    (["https://shop.example\r\nX: y"], []),
    ("javascript:alert(1)", []),
])  # fmt: skip
def test_only_origins_are_taken(given: Any, origins_: list[str]) -> None:
    assert origins.allowed_origins(channel(given)) == origins_


@pytest.mark.parametrize(("origin", "allowed"), [
    ("http://127.0.0.1:8000", True),  # PUBLIC_URL
    ("http://testserver", True),  # the host asked for
    ("https://shop.example", True),
    ("http://shop.example", False),
    ("https://shop.example.evil.example", False),
    ("https://evil.example", False),
    ("null", False),
    ("", False),  # every browser sends one with a POST
])  # fmt: skip
def test_who_may_post(origin: str, allowed: bool) -> None:
    headers = {"Origin": origin} if origin else {}
    request = requests.post("/", headers=headers)
    assert origins.may_write(channel("https://shop.example"), request) is allowed


def test_a_get_of_the_page_itself_has_no_origin() -> None:
    assert origins.may_write(channel(""), requests.get("/"))
    assert not origins.may_write(channel(""), requests.get("/", headers={"Origin": "https://evil.example"}))
