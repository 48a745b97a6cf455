"""Constant-time checks over raw bytes. Nothing that a stranger sends makes them raise."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar

TIMESTAMP = re.compile(r"[0-9]{1,12}\Z")  # ASCII only: int() also takes "１２３" and "1_000"
# Largest distance of a timestamp from our clock, in seconds. Larger: a captured request can be
# replayed for longer. Smaller: senders whose clocks differ are refused.
WINDOW_SECONDS = 300
V1_SIGNATURE = re.compile(r"(?:^| )v1,[A-Za-z0-9+/]{43}=(?: |\Z)")  # base64 of 32 bytes
WHSEC = "whsec_"  # how a secret of Standard Webhooks begins
# The whole of one: 22 characters of base64 are 16 bytes.
WHSEC_PATTERN = "whsec_[A-Za-z0-9+/]{22,}={0,2}"
# Fewest bytes of a key. Larger: refuses keys that nobody can guess. Smaller: accepts some that can
# be found by trying; an empty key would let everybody sign.
KEY_BYTES = 16
# Signatures of a header that are compared; the rest is ignored. Larger: a long header takes more
# CPU. Smaller: a sender that rotates several secrets is refused.
MAX_SIGNATURES = 16

# True after a signature was right and only its timestamp was not. Whoever asks clears it before.
was_stale: ContextVar[bool] = ContextVar("was_stale", default=False)


def same(given: str, wanted: str) -> bool:
    """Compare two texts in constant time, as bytes: ``compare_digest`` raises on non-ASCII text."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def any_same(given: str, wanted: Iterable[str]) -> bool:
    """Return True if ``given`` is one of ``wanted``; '' never matches.

    All are compared, so that the time does not tell which one matched.
    """
    found = False
    for value in wanted:
        found |= same(given, value) and bool(value)
    return found


def hex_signature(secret: str, body: bytes) -> str:
    """Return the HMAC-SHA256 of ``body`` in lower-case hex."""
    return hmac.new(secret.encode("utf-8", "surrogatepass"), body, hashlib.sha256).hexdigest()


def fresh(timestamp: str, now: float | None = None) -> bool:
    """Return True if a header's unix seconds are within ``WINDOW_SECONDS`` of now."""
    if not TIMESTAMP.match(timestamp):
        return False
    return abs((time.time() if now is None else now) - int(timestamp)) <= WINDOW_SECONDS


def webhook_key(secret: str) -> bytes:
    """Return the HMAC key of a ``whsec_`` secret.

    Raises ``ValueError`` if it is not base64, or of fewer than ``KEY_BYTES`` bytes.
    """
    text = secret.removeprefix(WHSEC)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the secret is not base64") from error
    if len(key) < KEY_BYTES:
        raise ValueError(f"the secret has fewer than {KEY_BYTES} bytes")
    return key


def can_sign(secret: str) -> bool:
    """Return True if a secret holds a key, see ``webhook_key``."""
    try:
        return bool(webhook_key(secret))
    except ValueError:
        return False


def sign_webhook(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return one ``v1,<base64>`` signature. Source: Standard Webhooks 1.0.0, "Signature scheme"."""
    digest = hmac.new(webhook_key(secret), f"{message_id}.{timestamp}.".encode(), hashlib.sha256)
    digest.update(body)  # not joined: a body may be large
    return "v1," + base64.b64encode(digest.digest()).decode()


def may_be_signed(headers: Mapping[str, str]) -> bool:
    """Return False if the headers alone show that Standard Webhooks would refuse any body."""
    message_id, timestamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    is_whole = bool(message_id) and message_id.isascii() and bool(V1_SIGNATURE.search(given))
    was_stale.set(is_whole and not fresh(timestamp))
    return is_whole and not was_stale.get()


def verify_request(secrets: Iterable[str], headers: Mapping[str, str], body: bytes) -> bool:
    """Return True if a request has a right signature of Standard Webhooks. Never raises.

    A secret that holds no key is ignored, so that a broken previous one does not spoil the other.
    """
    message_id, timestamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    return verify_webhook(filter(can_sign, secrets), message_id, timestamp, given, body)


def verify_webhook(secrets: Iterable[str], message_id: str, timestamp: str, header: str, body: bytes) -> bool:
    """Return True if any ``v1`` signature in ``header`` is right, for any secret, in the window."""
    given = header.split(" ")[:MAX_SIGNATURES]
    is_ascii = message_id.isascii() and timestamp.isascii()
    found = False
    for secret in secrets:
        wanted = sign_webhook(secret, message_id if is_ascii else "", timestamp if is_ascii else "", body)
        for signature in given:
            found |= same(signature, wanted)
    is_right = found and is_ascii and bool(message_id)
    was_stale.set(is_right and not fresh(timestamp))
    return is_right and not was_stale.get()
