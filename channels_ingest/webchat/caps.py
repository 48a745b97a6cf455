"""Limits how often an address may begin a conversation, how often a visitor may write and poll, and files.

Each process counts by itself, in bounded memory; only a channel's files of a day are counted in the database.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.http import HttpRequest

from channels_ingest.webhooks.client_address import client_address
from conversations import runtime
from conversations.contracts import ChannelConfig
from conversations.media import quota

# Conversations that an address may begin in an hour, a sixth of them at once. Larger: a script
# opens more conversations. Smaller: people behind one address (an office) wait.
NEW_PER_HOUR = 120
# A visitor may send MESSAGE_BURST messages at once, then one in MESSAGE_SECONDS. A burst that is
# too small delays people who write many short messages; too large lets one visitor fill a queue.
MESSAGE_SECONDS, MESSAGE_BURST = 1.0, 30
# The same for all visitors of an address, and for all of a channel: tokens are free, so one person
# can be many visitors. Smaller: people behind one address, or a busy channel, are slowed down.
ADDRESS_SECONDS, ADDRESS_BURST = 0.1, 200
CHANNEL_SECONDS, CHANNEL_BURST = 0.01, 1000
# A visitor may poll POLL_BURST times at once, then once in POLL_SECONDS; all visitors of an address
# together ADDRESS_POLLS times as often. A poll while an answer is on its way counts half, and one
# that brings nothing new a tenth. Larger bursts or shorter times: a script makes us read and send
# more. Smaller: pages in several tabs wait.
POLL_SECONDS, POLL_BURST = 0.5, 10
ADDRESS_POLLS = 20
# A visitor may send UPLOAD_BURST files at once, then one in UPLOAD_SECONDS; all visitors of an address
# together four times as many. A smaller burst or a longer time delays people who send many pictures; the
# reverse lets strangers fill the storage sooner.
UPLOAD_SECONDS, UPLOAD_BURST = 10.0, 10
# The part of a channel's files of a day that may come from one address. Larger: fewer strangers can leave
# nothing for others. Smaller: people behind one address can send less.
DAY, ADDRESS_SHARE = 86_400.0, 0.25
# Addresses or visitors that a cap counts. Larger: more memory. Smaller: under load the oldest are
# forgotten sooner and may begin again.
KEYS = 20_000


class Limit(NamedTuple):
    """``burst`` events of ``key`` at once, then one in ``interval`` seconds."""

    key: Any
    interval: float
    burst: float


class Cap:
    """Allow ``burst`` events of a key at once, then one in ``interval`` seconds.

    Beyond ``keys`` keys the oldest are forgotten, which bounds the memory.
    """

    def __init__(self, keys: int = KEYS) -> None:
        self._keys = keys
        # Key -> when its whole burst is free again, on the monotonic clock.
        self._free_at: OrderedDict[Any, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, key: Any, interval: float, burst: float) -> float:
        """Count an event and return 0.0, or return the seconds to wait without counting it."""
        return self.wait_for_all([Limit(key, interval, burst)])

    def wait_for_all(self, limits: Sequence[Limit]) -> float:
        """Do the same for an event that counts under several limits, or under none of them."""
        now = time.monotonic()
        with self._lock:
            free_at = [max(self._free_at.pop(limit.key, now), now) for limit in limits]
            too_early = max(
                at - now - (each.burst - 1) * each.interval for at, each in zip(free_at, limits, strict=True)
            )
            for at, limit in zip(free_at, limits, strict=True):
                self._free_at[limit.key] = at if too_early > 0 else at + limit.interval
            while len(self._free_at) > self._keys:
                self._free_at.popitem(last=False)
        return max(too_early, 0.0)

    def give_back(self, limits: Sequence[Limit], share: float) -> None:
        """Count an event that ``wait_for_all`` counted for less, by ``share`` of it."""
        with self._lock:
            for limit in limits:
                if limit.key in self._free_at:
                    self._free_at[limit.key] -= share * limit.interval

    def __len__(self) -> int:
        return len(self._free_at)


_conversations = runtime.kept(Cap)
_messages = runtime.kept(Cap)
_polls = runtime.kept(Cap)
_uploads = runtime.kept(Cap)


def wait_to_begin(channel: ChannelConfig, request: HttpRequest) -> float:
    """Return the seconds until this address may begin a conversation here; 0.0 counts one now."""
    per_hour = new_per_hour(channel)
    if not per_hour:
        return 0.0
    return _conversations().wait((channel.id, client_address(request)), 3600 / per_hour, max(per_hour // 6, 1))


def wait_to_write(channel: ChannelConfig, visitor: str, request: HttpRequest) -> float:
    """Return the seconds until this visitor may write again; 0.0 counts one now."""
    of_visitor = Limit((channel.id, visitor), MESSAGE_SECONDS, MESSAGE_BURST)
    of_address = Limit(client_address(request), ADDRESS_SECONDS, ADDRESS_BURST)
    return _messages().wait_for_all([of_visitor, of_address, Limit(channel.id, CHANNEL_SECONDS, CHANNEL_BURST)])


def wait_to_upload(channel: ChannelConfig, visitor: str, request: HttpRequest) -> float:
    """Return the seconds until this visitor may send a file; 0.0 counts one now."""
    of_address = Limit(client_address(request), UPLOAD_SECONDS / 4, UPLOAD_BURST * 4)
    return _uploads().wait_for_all([Limit((channel.id, visitor), UPLOAD_SECONDS, UPLOAD_BURST), of_address])


def no_room(channel: ChannelConfig, request: HttpRequest, size: int) -> str:
    """Return why a file of ``size`` bytes is not taken, in words for the visitor; '' counts it now."""
    size = max(size, quota.LEAST_BYTES)
    if quota.disk_is_full():
        return "Files cannot be taken at the moment. Your message can."
    most = quota.day_bytes(channel.options)
    if not most:
        return ""
    if quota.added(channel.id) + size > most:
        return "This chat takes no more files today. Please write, or send the file tomorrow."
    early = _uploads().wait_for_all([_day_of_address(channel, request, size, most)])
    return "Too many files came from your connection today. Please write, or send the file tomorrow." if early else ""


def give_room_back(channel: ChannelConfig, request: HttpRequest, size: int) -> None:
    """Count a file for which there was room no more in its address's day: it was not kept."""
    if most := quota.day_bytes(channel.options):
        _uploads().give_back([_day_of_address(channel, request, max(size, quota.LEAST_BYTES), most)], 1.0)


def _day_of_address(channel: ChannelConfig, request: HttpRequest, size: int, most: int) -> Limit:
    seconds = DAY * size / max(most * ADDRESS_SHARE, size)  # that the file takes of the address's day
    return Limit(("day", channel.id, client_address(request)), seconds, DAY / seconds)


def wait_to_poll(channel: ChannelConfig, visitor: str, request: HttpRequest) -> float:
    """Return the seconds until this visitor may poll again; 0.0 counts one now."""
    return _polls().wait_for_all(_poll_limits(channel, visitor, request))


def count_less(channel: ChannelConfig, visitor: str, request: HttpRequest, *, unchanged: bool, busy: bool) -> None:
    """Say what a counted poll brought: nothing new, or something while an answer is on its way."""
    cost = (0.1 if unchanged else 1.0) * (0.5 if busy else 1.0)
    _polls().give_back(_poll_limits(channel, visitor, request), 1.0 - cost)


def _poll_limits(channel: ChannelConfig, visitor: str, request: HttpRequest) -> list[Limit]:
    of_address = Limit(client_address(request), POLL_SECONDS / ADDRESS_POLLS, POLL_BURST * ADDRESS_POLLS)
    return [Limit((channel.id, visitor), POLL_SECONDS, POLL_BURST), of_address]


def new_per_hour(channel: ChannelConfig) -> int:
    """Return the option ``new_per_hour``; 0 means no limit."""
    try:
        return max(int(channel.options.get("new_per_hour", NEW_PER_HOUR)), 0)
    except (TypeError, ValueError):
        return NEW_PER_HOUR
