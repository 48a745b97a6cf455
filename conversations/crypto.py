"""Encrypts secrets (MultiFernet) and makes keyed hashes (BLAKE2b).

A sealed value contains the place that it belongs to. Copied into another channel's row, it does not
open.
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
    """Read a Fernet key or 64 hex digits, as hosts generate them.

    Raises ``ValueError`` otherwise.
    """
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
    """Encrypt a sealed value again, under the newest key."""
    return _fernet().rotate(token.encode()).decode()


def keyed_hash(key: bytes, *parts: str | bytes) -> bytes:
    """Hash ``parts`` to 16 bytes under ``key``. Length prefixes keep different lists apart."""
    digest = hashlib.blake2b(key=key, digest_size=IDENTITY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()


def fingerprint() -> str:
    """Return a name of the newest credentials key that does not reveal it; '' if there is none."""
    return next(iter(fingerprints()), "")


def fingerprints() -> list[str]:
    """Return a name of each key, newest first.

    During a rotation a database may belong to any of them.
    """
    return [hashlib.sha256(b"fingerprint:" + key.encode()).hexdigest()[:32] for key in settings.CREDENTIALS_KEYS]
