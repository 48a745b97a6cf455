"""What WhatsApp, Messenger and Instagram share: the handshake, the signature and the token.

Source: https://developers.facebook.com/docs/graph-api/webhooks/getting-started. Meta signs the bytes
as it sends them (non-ASCII as ``\\uXXXX``) with the secret of the app. The signature has no time, so
a captured request can be sent again: the identity of each message is what stops a repeat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from channels_ingest.adapters.base import Adapter, Secret
from channels_ingest.formats.signatures import any_same, hex_signature
from conversations.contracts import Answer, ChannelConfig, WebhookRequest

SIGNATURE_HEADER = "x-hub-signature-256"
SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
# What we repeat to whoever knows the verify token. Meta sends digits. Nothing here can be markup.
CHALLENGE = re.compile(r"[A-Za-z0-9_.-]{1,256}")


class MetaPlatform(Adapter):
    """The verbs that do not depend on the platform, and its secrets."""

    secrets = (
        Secret(name="access_token", help="the system user's token (WhatsApp) or the page's; sent with every call"),
        Secret(name="app_secret", help="App settings > Basic > App secret; signs webhooks", rotates=True),
        Secret(
            name="verify_token",
            help="words of your own, typed beside the callback URL; Meta repeats them when it checks the URL",
            rotates=True,
        ),
    )
    shakes_hands = True

    def handshake(self, channel: ChannelConfig, request: WebhookRequest) -> Answer | None:
        """Repeat the challenge to whoever knows the verify token; 403 to others."""
        query = request.query
        if query.get("hub.mode") != "subscribe":
            return None
        if not any_same(query.get("hub.verify_token", ""), channel.secrets("verify_token")):
            return Answer(status=403, body=b"forbidden\n")
        challenge = query.get("hub.challenge", "")
        return Answer(body=challenge.encode()) if CHALLENGE.fullmatch(challenge) else Answer(status=400)

    def precheck(self, channel: ChannelConfig, headers: Mapping[str, str]) -> bool:
        return bool(SIGNATURE.fullmatch(headers.get(SIGNATURE_HEADER, "")))

    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        wanted = [f"sha256={hex_signature(secret, request.body)}" for secret in channel.secrets("app_secret")]
        return any_same(request.headers.get(SIGNATURE_HEADER, ""), wanted)

    def sign(self, channel: ChannelConfig, body: bytes) -> dict[str, str]:
        signature = f"sha256={hex_signature(channel.credentials['app_secret'], body)}"
        return {"content-type": "application/json", SIGNATURE_HEADER: signature}
