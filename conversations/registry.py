"""Finds adapters, bots and channels for the core, which imports none of them directly.

Adapters come from ``settings.ADAPTERS`` (platform -> dotted path), bots from ``bots.py`` of any
installed app, channels from the database with a cache of ``CHANNEL_SECONDS``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
from django.apps import apps
from django.conf import settings
from django.utils.module_loading import import_string

from conversations import crypto
from conversations.contracts import Adapter, ChannelConfig
from conversations.errors import CoreError, UnknownBot, UnknownPlatform
from conversations.postgres import database

# Age of a cached channel. Larger: changes of settings take effect later. Smaller: more reads.
CHANNEL_SECONDS = 1.0
# A thread that waits for another's read checks this often whether the database answers. Larger: it
# waits longer behind a silent database.
WAIT_SECONDS = 0.1
# Age of a channel while Postgres is away and this host's spool stores its webhooks. Larger: a
# revoked secret is accepted longer. Smaller: webhooks of quiet channels are refused sooner.
SPOOL_SECONDS = 600.0

_bots: dict[str, Callable[..., Any]] = {}
_channels: dict[tuple[str, str | int], tuple[float, ChannelConfig | None]] = {}
_loading = threading.Lock()


# ---------------------------------------------------------------- adapters


@functools.cache
def adapter(platform: str) -> Adapter:
    """Return the adapter of ``platform``, made once per process. Raises ``UnknownPlatform``."""
    path = settings.ADAPTERS.get(platform)
    if path is None:
        raise UnknownPlatform(f"no adapter for {platform!r}; known: {', '.join(sorted(settings.ADAPTERS))}")
    return import_string(path)()


# ---------------------------------------------------------------- bots


def bot(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a bot:

    ``@bot("orders") def orders(turn): ...`` in any installed app's ``bots.py``.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        there = _bots.get(name)
        if there is not None and there.__module__ != function.__module__:
            raise ValueError(f"two bots are named {name!r}: in {there.__module__} and {function.__module__}")
        _bots[name] = function
        return function

    return register


@functools.cache
def load_bots() -> None:
    """Import every ``bots.py`` once. Raises its error: a bot must be whole or absent."""
    for config in apps.get_app_configs():
        name = f"{config.name}.bots"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)


def find_bot(name: str) -> Callable[..., Any]:
    """Return a bot's function. Raises ``UnknownBot`` with the names that exist."""
    load_bots()
    try:
        return _bots[name]
    except KeyError:
        raise UnknownBot(f"no bot named {name!r}; known: {', '.join(sorted(_bots))}") from None


def bot_names() -> list[str]:
    load_bots()
    return sorted(_bots)


# ---------------------------------------------------------------- channels


def channel(channel_id: int) -> ChannelConfig | None:
    """Return a channel by its id; at most twice ``CHANNEL_SECONDS`` old."""
    return _cached(("id", channel_id), "c.id = %s", channel_id)


def channel_by_public_id(platform: str | None, public_id: str) -> ChannelConfig | None:
    """Return a channel by the public id in its webhook's URL, or None.

    ``platform`` None: any platform.
    """
    if not public_id.isascii() or "\0" in public_id or len(public_id) > 40:
        return None
    found = _cached(("public", public_id), "c.public_id = %s", public_id)
    return found if found is not None and platform in (None, found.platform) else None


def forget_channels() -> None:
    """Empty the cache. For tests, and after this process has changed a channel."""
    _channels.clear()


def _cached(key: tuple[str, str | int], where: str, value: str | int) -> ChannelConfig | None:
    """The channel as it was read last, or read again.

    No ``concurrency.Fresh``: there is an answer per channel, others go on with the last one for
    one more ``CHANNEL_SECONDS`` only, and who waits gives up when the database is silent.
    """
    known = _channels.get(key)
    age = time.monotonic() - known[0] if known is not None else float("inf")
    if known is not None and (age < CHANNEL_SECONDS or (age < 2 * CHANNEL_SECONDS and _loading.locked())):
        return known[1]  # another thread is reading it: use the old one
    try:
        return _loaded(key, where, value)
    except (psycopg.Error, CoreError):
        if settings.SPOOL_DIR and known is not None and known[1] and time.monotonic() - known[0] < SPOOL_SECONDS:
            return known[1]
        raise


def _loaded(key: tuple[str, str | int], where: str, value: str | int) -> ChannelConfig | None:
    """Read a channel once for all threads that ask. Raises if the database is silent."""
    while not _loading.acquire(timeout=WAIT_SECONDS):
        database.refuse_if_silent()
    try:
        known = _channels.get(key)
        if known is not None and time.monotonic() - known[0] < CHANNEL_SECONDS:
            return known[1]
        config = _load(where, value)
        if config is None and len(_channels) > 100_000:
            _channels.clear()
        _channels[key] = (time.monotonic(), config)
        return config
    finally:
        _loading.release()


def _load(where: str, value: str | int) -> ChannelConfig | None:
    query = f"""SELECT c.id, c.public_id, c.platform, c.tenant_id, c.name, c.bot, c.active,
                       c.sealed, c.options, c.api_base
                  FROM channel c WHERE {where}"""  # noqa: S608  (two constants, above)
    rows = database.read(query, (value,))
    return _open(rows[0]) if rows else None


def _open(row: tuple[Any, ...]) -> ChannelConfig:
    fields = dict(zip(("id", "public_id", "platform", "tenant_id", "name", "bot", "active"), row, strict=False))
    place = f"channel:{row[1]}"
    credentials = {name: crypto.unseal(token, place) for name, token in row[7].items()}
    return ChannelConfig(**fields, credentials=credentials, options=row[8], api_base=row[9])


def describe(config: ChannelConfig) -> bytes:
    """Return a channel as JSON, without credentials, for child processes."""
    return msgspec.json.encode(msgspec.structs.replace(config, credentials={}))


def key_lives() -> dict[str, float | None]:
    """Return the life of each platform's idempotency keys in seconds; None: for ever."""
    config = ChannelConfig(id=0, public_id="", platform="", tenant_id=0)
    lives = {platform: adapter(platform).key_life(config) for platform in settings.ADAPTERS}
    return {platform: None if life == float("inf") else life for platform, life in lives.items()}
