"""A platform with apps, as small as can be: one webhook, signed by the app, for many numbers.

A body is a JSON list of ``{"to": number, "from": person, "id": ..., "text": ...}`` and ``{"to": number, "status": ...,
"reply": ...}``; what has neither cannot be read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from django.test import Client

from channels_ingest.adapters.base import Adapter, Option, Secret
from channels_ingest.formats.signatures import any_same
from conversations.contracts import (
    ChannelConfig,
    Entry,
    Kind,
    OutboundReply,
    Outcome,
    Parsed,
    Sender,
    Sent,
    StatusUpdate,
    Unusable,
    WebhookRequest,
)
from conversations.models import Channel

ADAPTERS = {"numbers": "tests.kit.numbers.Numbers"}


def sign(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Numbers(Adapter):
    platform = "numbers"
    secrets = (
        Secret(name="app_secret", help="signs webhooks", rotates=True),
        Secret(name="access_token", help="for sends"),
        Secret(name="verify_token", help="for the handshake", generated=True),
    )
    options = (Option(name="number_id", help="the platform's id of the number", pattern="[0-9]{1,20}"),)
    channel_noun = "number"
    channel_ref_option = "number_id"

    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        wanted = [sign(secret, request.body) for secret in channel.secrets("app_secret")]
        return any_same(request.headers.get("x-signature", ""), wanted)

    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        return [self._read(item) for item in json.loads(request.body)]

    def _read(self, item: dict[str, Any]) -> Parsed:
        if "status" in item:
            return StatusUpdate(platform_id=item["reply"], status=item["status"], channel_ref=item["to"])
        if "text" not in item:
            return Unusable(reason="unreadable", raw=json.dumps(item).encode(), channel_ref=item["to"])
        return Entry(kind=Kind.MESSAGE, chat=item["from"], sender=Sender(user=item["from"]), key=f"m:{item['id']}",
                     starts_turn=True, text=item["text"], channel_ref=item["to"],
                     raw=json.dumps(item).encode())  # fmt: skip

    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        return Sent()


def says(to: str, text: str, person: str = "ada") -> dict[str, str]:
    """A message of ``person`` to a number; the same words again are the same message."""
    return {"to": to, "from": person, "id": f"{person}-{text}", "text": text}


def post(channel: Channel, secret: str, *items: dict[str, str]) -> int:
    """Post a webhook to the URL of ``channel`` and return its status."""
    body = json.dumps(items).encode()
    headers = {"X-Signature": sign(secret, body)}
    return Client().post(channel.webhook_path, body, content_type="application/json", headers=headers).status_code
