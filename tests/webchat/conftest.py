"""A web channel on this worker's database, and a visitor's browser as a client of the API."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from django.test import Client

from conversations import runtime
from conversations.models import Channel, Tenant
from conversations.waking import wake

OWN = "http://127.0.0.1:8000"
SHOP = "https://shop.example"
SECRET = "known-to-the-shop-and-us"


class Visitor:
    """What the page does: a session, then messages and polls with its token."""

    def __init__(self, channel: Channel, origin: str = OWN) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.base = f"/web/{channel.public_id}"
        self.origin = origin
        self.token = ""

    @classmethod
    def of(cls, channel: Channel) -> Visitor:
        """Return one whose session has begun."""
        someone = cls(channel)
        assert someone.begin().status_code == 200
        return someone

    def begin(self, **identity: str) -> Any:
        answer = self._post("session/", identity)
        self.token = answer.json().get("token", self.token)
        return answer

    def say(self, text: str, client_id: str = "") -> Any:
        return self.post({"client_id": client_id or secrets.token_hex(8), "text": text})

    def post(self, body: Any) -> Any:
        return self._post("messages/", body)

    def poll(self, after: str = "", **headers: str) -> Any:
        return self.client.get(f"{self.base}/messages/", {"after": after}, headers=self._headers(headers))

    def _post(self, path: str, body: Any) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body)
        headers = self._headers({"Origin": self.origin} if self.origin else {})
        return self.client.post(f"{self.base}/{path}", content, content_type="application/json", headers=headers)

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **more}


@pytest.fixture
def chat(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wakes: what is stored is the matter here."""
    monkeypatch.setattr(wake, "handle", lambda *args, **kwargs: None)


@pytest.fixture
def channel(chat: None) -> Channel:
    return make_channel("shop", allowed_origins=SHOP)


@pytest.fixture
def visitor(channel: Channel) -> Visitor:
    return Visitor.of(channel)


def make_channel(name: str, **options: Any) -> Channel:
    tenant, _ = Tenant.objects.get_or_create(name="tenant")
    made = Channel(tenant=tenant, platform="web", name=name, bot="echo", options=options)
    made.set_credentials({"identify_secret": SECRET})
    made.save()
    runtime.begin()
    return made
