"""Secrets at rest and keyed hashes: MultiFernet from ``cryptography``, BLAKE2b from the standard library.

A sealed value carries the place that it belongs to, so that a row pasted into another
channel does not open there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

IDENTITY_BYTES = 16
KEY_BYTES = 32


def _fernet() -> MultiFernet:
    if not settings.CREDENTIALS_KEYS:
        raise RuntimeError("CREDENTIALS_KEYS is not set: credentials cannot be read or written")
    return MultiFernet([read_key(key) for key in settings.CREDENTIALS_KEYS])


def read_key(key: str) -> Fernet:
    """A Fernet key, or the 64 hex digits that hosts generate. Raises ``ValueError`` for anything else."""
    return Fernet(base64.urlsafe_b64encode(bytes.fromhex(key)) if len(key) == 2 * KEY_BYTES else key)


def seal(value: str, place: str) -> str:
    """Encrypt ``value`` so that it opens only at ``place``."""
    return _fernet().encrypt(json.dumps([place, value]).encode()).decode()


def unseal(token: str, place: str) -> str:
    """Decrypt what ``seal`` made. Raises ``InvalidToken`` for another key or another place."""
    stored_place, value = json.loads(_fernet().decrypt(token.encode()))
    if not hmac.compare_digest(stored_place.encode(), place.encode()):
        raise InvalidToken
    return value


def rotate(token: str) -> str:
    """The same value under the newest key."""
    return _fernet().rotate(token.encode()).decode()


def keyed_hash(key: bytes, *parts: str | bytes) -> bytes:
    """16 bytes that only the holder of ``key`` can make; parts are length-prefixed, so no two lists meet."""
    digest = hashlib.blake2b(key=key, digest_size=IDENTITY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()


def fingerprint() -> str:
    """Names the newest credentials key without giving it away; '' when there is none."""
    return next(iter(fingerprints()), "")


def fingerprints() -> list[str]:
    """One name per key, newest first: during a rotation a database belongs to any of them."""
    return [hashlib.sha256(b"fingerprint:" + key.encode()).hexdigest()[:32] for key in settings.CREDENTIALS_KEYS]
