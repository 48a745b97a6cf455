"""Reading ``tests/fixtures/<platform>/<event>.json``: ``headers`` and ``body``, or ``raw``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.telegram.adapter import Telegram
from conversations.contracts import ChannelConfig, Entry, Note, Parsed, StatusUpdate, Unusable, WebhookRequest

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ADAPTERS = {"telegram": Telegram(), "generic": Generic(), "whatsapp": WhatsApp()}
CREDENTIALS = {
    "token": "4242:TOKEN",
    "secret_token": "fixture_secret-Token1",
    "secret": "whsec_" + "Zml4dHVyZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE=",
    "app_secret": "fixture0app0secret0of0320letters",
    "verify_token": "fixture words",
    "access_token": "EAAfixture",
}
OPTIONS = {"whatsapp": {"phone_number_id": "555000111222333"}}


def names(platform: str) -> list[str]:
    return sorted(path.stem for path in (FIXTURES / platform).glob("*.json"))


def channel(
    platform: str, *, api_base: str = "", credentials: Mapping[str, str] = CREDENTIALS, **options: Any
) -> ChannelConfig:
    return ChannelConfig(id=1, public_id="p", platform=platform, tenant_id=1, credentials=dict(credentials),
                         options={**OPTIONS.get(platform, {}), **options}, api_base=api_base)  # fmt: skip


def request(platform: str, name: str) -> WebhookRequest:
    fixture = json.loads((FIXTURES / platform / f"{name}.json").read_text())
    body = fixture["raw"].encode() if "raw" in fixture else json.dumps(fixture["body"], ensure_ascii=False).encode()
    return incoming(body, **fixture["headers"])


def incoming(body: bytes, **headers: str) -> WebhookRequest:
    return WebhookRequest(method="POST", url="", headers=headers, query={}, body=body)


def parse(platform: str, name: str, **options: Any) -> list[Parsed]:
    return ADAPTERS[platform].parse(channel(platform, **options), request(platform, name))


def entry(platform: str, name: str, **options: Any) -> Entry:
    """The one entry of a fixture."""
    (parsed,) = parse(platform, name, **options)
    assert isinstance(parsed, Entry)
    return parsed


def summary(parsed: Parsed) -> tuple[Any, ...]:
    """Kind, whether it starts a turn, and text; of what is no message, its class and words."""
    if isinstance(parsed, Entry):
        return (str(parsed.kind), parsed.starts_turn, parsed.text)
    if isinstance(parsed, StatusUpdate):
        return ("status", parsed.status, parsed.key)
    assert isinstance(parsed, Note | Unusable)
    return (type(parsed).__name__.lower(), parsed.reason)
