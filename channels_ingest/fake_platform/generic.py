"""A receiver of the generic channel: it knows a repeated ``webhook-id`` for ever."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Any

from channels_ingest.fake_platform import tables
from channels_ingest.fake_platform.tables import Error
from channels_ingest.fake_platform.world import World

NAME = "generic"
TOLERANCE_SECONDS = 300.0


def describe(path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """Return what a call says; ``server.Handler`` lists it. Its method is the path."""
    data: Any = body["data"] if isinstance(body.get("data"), dict) else {}
    chat: Any = data["chat"] if isinstance(data.get("chat"), dict) else {}
    return {
        "method": path,
        "chat": str(chat.get("id", "")),
        "text": str(data.get("text") or ""),
        "key": headers.get("webhook-id", ""),
        "name": headers.get("webhook-id", ""),
    }


def refusal(call: dict[str, Any], world: World) -> Error | None:
    """Return the error with which a receiver refuses a call; None if it accepts it."""
    if world.is_open:
        return tables.refusal(NAME, "message.reply", call["body"]) if call["body"].get("data") else None
    account = world.accounts.get(call["method"])
    if account is None:
        return tables.error(NAME, "404")
    if not _is_signed(account.secret, call):
        return tables.error(NAME, "401")
    found = tables.refusal(NAME, "message.reply", call["body"])
    if found is None and call["key"] != call["body"]["data"]["outbound_id"]:
        return tables.error(NAME, "400", "webhook-id is not the outbound_id")
    return found


def _is_signed(secret: str, call: dict[str, Any]) -> bool:
    """Return True if the request is signed as Standard Webhooks 1.0.0 says."""
    headers = call["headers"]
    at = headers.get("webhook-timestamp", "")
    if not at.isdecimal() or abs(time.time() - int(at)) > TOLERANCE_SECONDS:
        return False
    signed = f"{call['key']}.{at}.".encode() + call["raw"]
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}" in headers.get("webhook-signature", "").split()


def error_body(error: Error, rule: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"error": rule.get("description", error.details or error.words)}


def success(call: dict[str, Any], message_id: int, world: World) -> Any:
    """Return the body of the answer to a call that is accepted."""
    return {}
