"""Webhooks of our own making, signed as the platforms sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from tests.kit.stack import Channel

WHATSAPP = {"app_secret": "0123456789abcdef0123456789abcdef", "verify_token": "our words", "access_token": "EAA",
            "phone_number_id": "555000111222333"}  # fmt: skip
GENERIC_SECRET = "whsec_" + base64.b64encode(b"a test secret of 32 bytes length").decode()


def telegram_text(channel: Channel, user: int, message: int, text: str) -> tuple[bytes, dict[str, str]]:
    """A private text message."""
    person = {"id": user, "is_bot": False, "first_name": f"User {user}"}
    update = {"update_id": user * 1_000_000 + message,
              "message": {"message_id": message, "from": person,
                          "chat": {"id": user, "type": "private", "first_name": f"User {user}"},
                          "date": 1_790_000_000 + message, "text": text}}  # fmt: skip
    return telegram(channel, update)


def telegram(channel: Channel, update: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    headers = {"content-type": "application/json", "x-telegram-bot-api-secret-token": channel.secrets["secret_token"]}
    return json.dumps(update).encode(), headers


def whatsapp_text(user: str, message: str, text: str) -> dict[str, Any]:
    """A text of a person who shows no number."""
    return {"from_user_id": user, "id": message, "timestamp": "1790000000", "type": "text", "text": {"body": text}}


def whatsapp(channel: Channel, **lists: list[dict[str, Any]]) -> tuple[bytes, dict[str, str]]:
    """A webhook of WhatsApp. ``lists``: messages, statuses."""
    metadata = {"display_phone_number": "4930", "phone_number_id": channel.secrets["phone_number_id"]}
    change = {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": metadata, **lists}}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    return signed_whatsapp(channel, json.dumps(body).encode())


def signed_whatsapp(channel: Channel, raw: bytes) -> tuple[bytes, dict[str, str]]:
    signature = hmac.new(channel.secrets["app_secret"].encode(), raw, hashlib.sha256).hexdigest()
    return raw, {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}


def generic_text(
    channel: Channel, user: str, message: str, text: str, seq: int | None = None
) -> tuple[bytes, dict[str, str]]:
    """A message of the generic channel, signed now."""
    data: dict[str, Any] = {"message_id": message, "user": {"id": user}, "chat": {"id": user}, "text": text}
    if seq is not None:
        data["seq"] = seq
    return generic(channel, {"type": "message.created", "timestamp": "2026-11-22T10:00:00Z", "data": data}, message)


def generic(channel: Channel, body: dict[str, Any], webhook_id: str) -> tuple[bytes, dict[str, str]]:
    return signed_generic(channel, json.dumps(body).encode(), webhook_id)


def signed_generic(channel: Channel, raw: bytes, webhook_id: str) -> tuple[bytes, dict[str, str]]:
    at = str(int(time.time()))
    key = base64.b64decode(channel.secrets["secret"].removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"{webhook_id}.{at}.".encode() + raw, hashlib.sha256).digest()).decode()
    return raw, {"content-type": "application/json", "webhook-id": webhook_id, "webhook-timestamp": at,
                 "webhook-signature": f"v1,{signature}"}  # fmt: skip
