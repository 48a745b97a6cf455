"""Finds adapters, bots and channels for the core, which imports none of them directly.

Adapters come from ``settings.ADAPTERS`` (platform -> dotted path), bots from ``bots.py`` of any
installed app, channels from the database with a cache of ``CHANNEL_SECONDS``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec
import psycopg
from django.apps import apps
from django.conf import settings
from django.utils.module_loading import import_string

from conversations import crypto, installation, runtime
from conversations.contracts import Adapter, ChannelConfig
from conversations.errors import CoreError, NotStored, UnknownBot, UnknownPlatform
from conversations.postgres.storable_text import storable

# Seconds for which a channel is cached. Larger: changed settings take effect later; smaller: more
# reads.
CHANNEL_SECONDS = 1.0
# Seconds between two checks whether the database answers, made by a thread that waits for another
# thread's read. Larger: it waits longer for a silent database; smaller: more checks.
WAIT_SECONDS = 0.1
# Seconds for which a cached channel serves while Postgres is away and this host's spool (a file)
# stores its webhooks. Larger: a revoked secret is accepted for longer. Smaller: webhooks of quiet
# channels, whose settings were read long ago, are refused sooner.
SPOOL_SECONDS = 600.0

# Cached channels, None for unknown ones. Unknown public ids come from strangers' URLs, and unknown ids
# of platforms from webhooks of apps, so at this size the cache is emptied. Larger: more memory;
# smaller: known channels are read again more often.
CACHED_CHANNELS = 100_000

_bots: dict[str, Callable[..., Any]] = {}
_by_channel: set[str] = set()  # bots whose channels do not fail together
_checkouts: dict[str, Callable[..., Any]] = {}  # by bot: the function that decides whether a payment may go on


# ---------------------------------------------------------------- adapters


@functools.cache
def adapter(platform: str) -> Adapter:
    """Return the adapter of ``platform``, made once per process. Raises ``UnknownPlatform``."""
    path = settings.ADAPTERS.get(platform)
    if path is None:
        raise UnknownPlatform(f"no adapter for {platform!r}; known: {', '.join(sorted(settings.ADAPTERS))}")
    return import_string(path)()


# ---------------------------------------------------------------- bots


def bot(
    name: str, *, by_channel: bool = False, checkout: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a bot: ``@bot("orders") def orders(turn): ...`` in an installed app's ``bots.py``.

    ``by_channel``: each channel's turns go to a service of its own, so that failures in some
    channels say nothing about the others. On a copy of production its turns wait, since those
    services are production's. ``checkout``: a plain function that gets a ``turns.Checkout`` and
    returns True, or why the payment may not go on; see ``acts/checkouts.py``. Raises
    ``ValueError`` if another module has a bot of that name, or if ``checkout`` is ``async def``.
    """
    if inspect.iscoroutinefunction(checkout):
        raise ValueError(f"the checkout of bot {name!r} is async def: it must be a plain function")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        existing = _bots.get(name)
        if existing is not None and existing.__module__ != function.__module__:
            raise ValueError(f"two bots are named {name!r}: in {existing.__module__} and {function.__module__}")
        _bots[name] = function
        (_by_channel.add if by_channel else _by_channel.discard)(name)
        _checkouts.pop(name, None)
        if checkout is not None:
            _checkouts[name] = checkout
        return function

    return register


@functools.cache
def load_bots() -> None:
    """Import every app's ``bots.py`` once. Raises its error: no bot may be missing silently."""
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


def find_checkout(name: str) -> Callable[..., Any] | None:
    """Return the function of a bot that decides on payments; None if it takes none."""
    load_bots()
    return _checkouts.get(name)


def bot_names() -> list[str]:
    """Return the names of all bots that this process knows."""
    load_bots()
    return sorted(_bots)


def fails_by_channel(name: str) -> bool:
    """Return True if failures of this bot in some channels say nothing about the others."""
    return name in _by_channel


def why_bot_waits(name: str) -> str:
    """Return why turns of this bot wait on a copy of production; '' if they need not."""
    load_bots()
    return installation.held() if name in _by_channel else ""


# ---------------------------------------------------------------- channels


def channel(channel_id: int) -> ChannelConfig | None:
    """Return a channel by its id, or None; at most twice ``CHANNEL_SECONDS`` old."""
    return _cache().get("id", channel_id)


def channel_by_public_id(platform: str | None, public_id: str) -> ChannelConfig | None:
    """Return a channel by the public id in its webhook's URL, or None.

    Strangers may send any id: one that cannot exist is not looked up. ``platform`` None: any
    platform.
    """
    if not public_id.isascii() or "\0" in public_id or len(public_id) > 40:
        return None
    found = _cache().get("public_id", public_id)
    return found if found is not None and platform in (None, found.platform) else None


def channels_of_app(app_id: int, refs: Collection[str]) -> dict[str, ChannelConfig]:
    """Return those channels of an app that its platform calls by one of ``refs``, by that id.

    They have no credentials: storing needs none, and a channel whose credentials cannot be decrypted
    must not hold up a request for others.
    """
    return _cache().of_app(app_id, {ref for ref in refs if storable(ref)}) if app_id else {}


def inherited(own: Iterable[str], of_app: Iterable[str]) -> tuple[str, ...]:
    """Return which credentials of an app a channel takes over that has ``own`` ones, by name.

    A secret of its own replaces both values of the app's, the current and the previous one.
    """
    names = {name.removesuffix("_previous") for name in own}
    return tuple(name for name in of_app if name.removesuffix("_previous") not in names)


def forget_channels() -> None:
    """Empty the cache, after this process has changed a channel or an app."""
    _cache().known.clear()


class ChannelCache:
    """The channels that this process read lately.

    Not a ``concurrency.Fresh``: there is an answer per channel; while a thread reads, the others
    use the old answer for one more ``CHANNEL_SECONDS`` only; and threads that wait give up when the
    database is silent.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, str | int | tuple[int, str]], tuple[float, ChannelConfig | None]] = {}
        self._loading: dict[tuple[str, str | int], threading.Lock] = {}  # of what is being read
        self._reading: set[tuple[int, str]] = set()  # app and platform's id of what ``of_app`` is reading
        self._failed_at = 0.0  # when a read of a channel failed last

    def get(self, column: str, value: str | int) -> ChannelConfig | None:
        """Return the cached channel, or read it again if it is too old.

        ``column`` must be a constant, since it becomes SQL.
        """
        known = self.known.get((column, value))
        age = time.monotonic() - known[0] if known is not None else float("inf")
        if known is not None and (
            age < CHANNEL_SECONDS or (age < 2 * CHANNEL_SECONDS and (column, value) in self._loading)
        ):
            return known[1]  # another thread reads this channel: do not wait for it
        try:
            return self._loaded(column, value)
        except (psycopg.Error, CoreError):
            if settings.SPOOL_DIR and known is not None and known[1] and time.monotonic() - known[0] < SPOOL_SECONDS:
                return known[1]
            raise

    def of_app(self, app_id: int, refs: Collection[str]) -> dict[str, ChannelConfig]:
        """Return channels of an app by the platform's ids; all that are too old are read at once.

        While another thread reads one, it may be twice as old: a slow read holds up one request.
        """
        now = time.monotonic()
        known = {ref: self.known.get(("of_app", (app_id, ref))) for ref in refs}
        limits = {ref: CHANNEL_SECONDS * (2 if (app_id, ref) in self._reading else 1) for ref in refs}
        old = [ref for ref, read in known.items() if read is None or now - read[0] >= limits[ref]]
        if old:
            reading = {(app_id, ref) for ref in old}
            self._reading |= reading
            try:
                found = {config.external_id: config for config in _load_of_app(app_id, old)}
            finally:
                self._reading -= reading
            if len(self.known) > CACHED_CHANNELS:
                self.known.clear()
            for ref in old:
                known[ref] = self.known["of_app", (app_id, ref)] = (now, found.get(ref))
        return {ref: read[1] for ref, read in known.items() if read is not None and read[1] is not None}

    def _loaded(self, column: str, value: str | int) -> ChannelConfig | None:
        """Read a channel, one thread at a time: the others find it cached. None waits for other channels.

        A read that fails, fails for all that waited for it: each of them would connect in vain, one after
        the other, while the webhooks behind them wait for their threads. Raises if the database is silent.
        """
        began = time.monotonic()
        loading = self._loading.setdefault((column, value), threading.Lock())
        while not loading.acquire(timeout=WAIT_SECONDS):
            runtime.current().refuse_if_silent()
        try:
            known = self.known.get((column, value))
            if known is not None and time.monotonic() - known[0] < CHANNEL_SECONDS:
                return known[1]
            if self._failed_at > began:
                raise NotStored("another thread could not read a channel meanwhile")
            try:
                config = _load(column, value)
            except (psycopg.Error, CoreError):
                self._failed_at = time.monotonic()
                raise
            if config is None and len(self.known) > CACHED_CHANNELS:
                self.known.clear()
            self.known[column, value] = (time.monotonic(), config)
            return config
        finally:
            self._loading.pop((column, value), None)  # who still waits for this lock finds the channel cached
            loading.release()


_cache = runtime.kept(ChannelCache)


COLUMNS = ("id", "public_id", "platform", "tenant_id", "name", "bot", "active", "options", "api_base", "external_id")
# An app counts only for channels of its own platform and tenant, whatever ``channel.app_id`` says.
CHANNELS = f"""SELECT {", ".join(f"c.{column}" for column in COLUMNS)},
                       a.id, a.public_id, a.tenant_id, a.sealed, c.sealed
                  FROM channel c
                  LEFT JOIN app a ON a.id = c.app_id AND a.platform = c.platform
                                 AND coalesce(a.tenant_id, c.tenant_id) = c.tenant_id"""  # noqa: S608  (constants)


def _load(column: str, value: str | int) -> ChannelConfig | None:
    """Read one channel from the database."""
    rows = runtime.read(f"{CHANNELS} WHERE c.{column} = %s", (value,))
    return _open(rows[0]) if rows else None


def _load_of_app(app_id: int, refs: Collection[str]) -> list[ChannelConfig]:
    """Read channels of an app by the platform's ids, without credentials."""
    query = f"{CHANNELS} WHERE a.id = %s AND c.external_id = ANY (%s) AND c.external_id <> ''"
    return [_without_credentials(row) for row in runtime.read(query, (app_id, list(refs)))]


def _without_credentials(row: tuple[Any, ...]) -> ChannelConfig:
    """Make a channel of a row of ``CHANNELS``."""
    fields = dict(zip(COLUMNS, row, strict=False))
    return ChannelConfig(**fields, app_id=row[len(COLUMNS)] or 0)


def _open(row: tuple[Any, ...]) -> ChannelConfig:
    """Make a channel of its row, with decrypted credentials: its own, and its app's where it has none.

    Raises ``InvalidToken`` for credentials sealed for another row or with another key.
    """
    config = _without_credentials(row)
    app_id, app_public_id, app_tenant_id, app_sealed, sealed = row[len(COLUMNS) :]
    own = crypto.unseal_fields(sealed, f"channel:{config.public_id}", config.tenant_id)
    of_app = crypto.unseal_fields(app_sealed, f"app:{app_public_id}", app_tenant_id or 0) if app_id else {}
    names = inherited(own, of_app)
    credentials = {**own, **{name: of_app[name] for name in names}}
    return msgspec.structs.replace(config, credentials=credentials, inherited=names)


def describe(config: ChannelConfig) -> bytes:
    """Return a channel as JSON for child processes, without credentials: bots run there."""
    return msgspec.json.encode(msgspec.structs.replace(config, credentials={}))


def key_lives() -> dict[str, float | None]:
    """Return for how many seconds each platform recognises a repeated key; None: for ever."""
    config = ChannelConfig(id=0, public_id="", platform="", tenant_id=0)
    lives = {platform: adapter(platform).key_life(config) for platform in settings.ADAPTERS}
    return {platform: None if life == float("inf") else life for platform, life in lives.items()}


def reporting_keys() -> list[str]:
    """Return the platforms whose statuses name a reply by our key."""
    return [platform for platform in settings.ADAPTERS if adapter(platform).reports_key]
