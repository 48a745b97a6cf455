"""Which installation this is: its identity key, and whether this process may write to people.

The database remembers the ``PUBLIC_URL`` and the credentials key that it belongs to. A process
started with others (a copy of production on staging) holds all sending and timers until
``manage.py adopt_database``.
"""

from __future__ import annotations

import functools

import psycopg
from cryptography.fernet import InvalidToken
from django.conf import settings

from conversations import crypto
from conversations.concurrency import Fresh
from conversations.errors import CoreError, WrongKeys
from conversations.postgres import database

HELD_SECONDS = 2.0
PLACE = "installation"
UNKNOWN = "the database cannot be asked whose it is"


@functools.cache
def identity_key() -> bytes:
    """The key of de-duplication, read once per process. Raises ``WrongKeys``, or psycopg's errors."""
    rows = database.read("SELECT identity_key FROM installation")
    if not rows:
        raise WrongKeys("this database has no identity key: run manage.py migrate")
    try:
        return bytes.fromhex(crypto.unseal(rows[0][0], PLACE))
    except InvalidToken:
        raise WrongKeys("CREDENTIALS_KEYS do not open this database's identity key") from None


def held() -> str:
    """Why sending and timers are held; '' when they are not. At most ``HELD_SECONDS`` old, never raises."""
    return _held()


def may_send_to(user: str, chat: str) -> bool:
    """Whether a reply may go out. ``SEND_ONLY_TO`` lets those it names through, and nobody else."""
    if settings.SEND_ONLY_TO:
        return user in settings.SEND_ONLY_TO or chat in settings.SEND_ONLY_TO
    return not held()


def forget() -> None:
    """Ask again at the next call: in tests, and where this process has just changed the row."""
    _held.forget()
    identity_key.cache_clear()


def _ask(before: str) -> str:
    """What held before goes on while the database is away."""
    try:
        rows = database.read("SELECT public_url, credentials_fingerprint FROM installation")
    except (psycopg.Error, CoreError):
        return before
    return reason(*rows[0]) if rows else UNKNOWN


_held = Fresh(_ask, HELD_SECONDS, first=UNKNOWN)


def reason(public_url: str, fingerprint: str) -> str:
    """Why a database that belongs to these two is not ours; '' when it is."""
    if public_url != settings.PUBLIC_URL:
        return f"this database belongs to {public_url}, not to {settings.PUBLIC_URL}: adopt_database takes over"
    if fingerprint not in crypto.fingerprints():
        return "this database belongs to another credentials key: adopt_database takes over"
    return ""
