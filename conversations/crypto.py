"""Encrypts secrets (MultiFernet) and makes keyed hashes (BLAKE2b).

A sealed value contains its place (a channel's field, say). Copied to another place, it does not
open: whoever can write rows cannot use one channel's credentials for another, nor a token as a URL.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

# Bytes of a keyed hash. Fewer: two messages may get the same identity, and one is taken for a
# duplicate; more: larger rows and indexes.
IDENTITY_BYTES = 16
# Bytes of a Fernet key, a fixed size of the format.
KEY_BYTES = 32
# Begins a credential that names its row, tenant and field. Without it, as version 0.1 wrote them, a
# credential names its row only.
WITH_FIELD = "2:"
# Fewest bits of chance of a secret that people choose. Larger: refuses secrets that nobody can
# guess. Smaller: accepts some that can be found by trying.
SECRET_BITS = 128
# Fewest different characters of such a secret: what repeats a few was not made by chance.
SECRET_VARIETY = 8


def _fernet() -> MultiFernet:
    """Return a cipher that encrypts under the newest key and decrypts under each."""
    if not settings.CREDENTIALS_KEYS:
        raise RuntimeError("CREDENTIALS_KEYS is not set: credentials cannot be read or written")
    return MultiFernet([read_key(key) for key in settings.CREDENTIALS_KEYS])


def read_key(key: str) -> Fernet:
    """Read a key: a Fernet key, or 64 hex digits, since some hosts generate secrets in hex.

    Raises ``ValueError`` for anything else.
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


def seal_field(value: str, row: str, tenant: int, field: str) -> str:
    """Encrypt a credential so that it opens only in this field of this row of this tenant."""
    return WITH_FIELD + seal(value, f"{row}:{tenant}:{field}")


def unseal_fields(sealed: Mapping[str, str], row: str, tenant: int) -> dict[str, str]:
    """Decrypt the credentials of a row, by field. Raises ``InvalidToken`` as ``unseal`` does."""
    return {
        field: unseal(
            token.removeprefix(WITH_FIELD), f"{row}:{tenant}:{field}" if token.startswith(WITH_FIELD) else row
        )
        for field, token in sealed.items()
    }


def rotate(token: str) -> str:
    """Encrypt a sealed value again under the newest key, so that older keys can be dropped."""
    return _fernet().rotate(token.encode()).decode()


def keyed_hash(key: bytes, *parts: str | bytes) -> bytes:
    """Hash ``parts`` to ``IDENTITY_BYTES`` under ``key``.

    Each part has its length before it, so that ``("ab", "c")`` and ``("a", "bc")`` differ.
    """
    digest = hashlib.blake2b(key=key, digest_size=IDENTITY_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()


def hide(text: str) -> str:
    """Return a keyed hash of ``text`` in hex, for a place that must not hold it, such as Redis."""
    key = hashlib.sha256(b"hide:" + settings.SECRET_KEY.encode()).digest()
    return keyed_hash(key, text).hex()


def is_guessable(secret: str) -> bool:
    """Return True if a secret of this length and these characters has under ``SECRET_BITS`` bits.

    Digits count 3.3 bits each, hex digits 4, others 6: 128 bits are 39, 32 or 22 characters.
    """
    alphabet = 10 if secret.isdigit() else 16 if re.fullmatch("[0-9a-fA-F]*", secret) else 64
    return len(secret) * math.log2(alphabet) < SECRET_BITS or len(set(secret)) < SECRET_VARIETY


def fingerprint() -> str:
    """Return a name of the newest credentials key that does not reveal it; '' if there is none."""
    return next(iter(fingerprints()), "")


def fingerprints() -> list[str]:
    """Return a name of each credentials key, newest first.

    During a rotation the database may still be marked with an older one.
    """
    return [hashlib.sha256(b"fingerprint:" + key.encode()).hexdigest()[:32] for key in settings.CREDENTIALS_KEYS]
