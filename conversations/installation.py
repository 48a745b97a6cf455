"""Reads the identity key of this installation, and decides whether this process may write to people.

The database stores the ``PUBLIC_URL`` and the credentials key that it belongs to. A process with
other values may run on a copy (of production, on staging) and must not write to real people: it
holds all sending and timers until somebody runs ``manage.py adopt_database``.
"""

from __future__ import annotations

import psycopg
from cryptography.fernet import InvalidToken
from django.conf import settings

from conversations import crypto, runtime
from conversations.concurrency import Fresh
from conversations.contracts import ChannelConfig
from conversations.errors import CoreError, WrongKeys

# Seconds for which the answer of ``held`` is cached. Larger: after adopt_database, sending begins
# later; smaller: more reads.
HELD_SECONDS = 2.0
# Where the identity key is stored, see ``crypto.seal``.
PLACE = "installation"
# Why nothing is sent before the database was read for the first time.
UNKNOWN = "the database does not answer whose it is"


@runtime.kept
def _keys() -> dict[str, bytes]:
    return {}


def identity_key() -> bytes:
    """Return the key under which messages are hashed to find duplicates, read once per process.

    Raises ``WrongKeys`` or psycopg's errors.
    """
    keys = _keys()
    if PLACE not in keys:
        keys[PLACE] = _read_key()
    return keys[PLACE]


def _read_key() -> bytes:
    rows = runtime.read("SELECT identity_key FROM installation")
    if not rows:
        raise WrongKeys("this database has no identity key: run manage.py migrate")
    try:
        return bytes.fromhex(crypto.unseal(rows[0][0], PLACE))
    except InvalidToken:
        raise WrongKeys("CREDENTIALS_KEYS do not open this database's identity key") from None


def held() -> str:
    """Return why sending and timers are held, or ''. At most ``HELD_SECONDS`` old. Never raises."""
    return _answer()()


def may_send_to(channel: ChannelConfig, user: str, chat: str, is_group: bool) -> bool:
    """Return True if a reply to this user and chat of a channel may be sent.

    If ``SEND_ONLY_TO`` is set (for tests on a copy), that list alone decides. It has entries
    ``<public id of the channel>:<user or chat>``; a group must be named by its chat, since everybody
    in it reads the reply.
    """
    if settings.SEND_ONLY_TO:
        named = [chat] if is_group else [chat, user]
        return any(f"{channel.public_id}:{each}" in settings.SEND_ONLY_TO for each in named)
    return not held()


def _ask(before: str) -> str:
    """Read why sending is held. While the database is away, keep the last answer."""
    try:
        rows = runtime.read("SELECT public_url, credentials_fingerprint FROM installation")
    except (psycopg.Error, CoreError):
        return before
    return reason(*rows[0]) if rows else UNKNOWN


@runtime.kept
def _answer() -> Fresh[str]:
    return Fresh(_ask, HELD_SECONDS, first=UNKNOWN)


def reason(public_url: str, fingerprint: str) -> str:
    """Return why a database with this URL and key is not this installation's; '' if it is."""
    if public_url != settings.PUBLIC_URL:
        return f"this database belongs to {public_url}, not to {settings.PUBLIC_URL}: adopt_database takes over"
    if fingerprint not in crypto.fingerprints():
        return "this database belongs to another credentials key: adopt_database takes over"
    return ""
