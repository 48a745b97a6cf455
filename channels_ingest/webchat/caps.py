"""Limits how often an address may begin a conversation and a visitor may write.

Each process counts by itself, in bounded memory.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from django.http import HttpRequest

from channels_ingest.webhooks.client_address import client_address
from conversations.contracts import ChannelConfig

# Conversations that an address may begin in an hour, a sixth of them at once. Larger: a script
# opens more conversations. Smaller: people behind one address (an office) wait.
NEW_PER_HOUR = 120
# A visitor may send MESSAGE_BURST messages at once, then one in MESSAGE_SECONDS. A burst that is
# too small delays people who write many short messages; too large lets one visitor fill a queue.
MESSAGE_SECONDS, MESSAGE_BURST = 1.0, 30
# Addresses or visitors that a cap counts. Larger: more memory. Smaller: under load the oldest are
# forgotten sooner and may begin again.
KEYS = 20_000


class Cap:
    """Allow ``burst`` events of a key at once, then one in ``interval`` seconds.

    Beyond ``keys`` keys the oldest are forgotten, which bounds the memory.
    """

    def __init__(self, keys: int = KEYS) -> None:
        self._keys = keys
        # Key -> when its whole burst is free again, on the monotonic clock.
        self._free_at: OrderedDict[Any, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, key: Any, interval: float, burst: int) -> float:
        """Count an event and return 0.0, or return the seconds to wait without counting it."""
        now = time.monotonic()
        with self._lock:
            free_at = max(self._free_at.pop(key, now), now)
            too_early = free_at - now - (burst - 1) * interval
            self._free_at[key] = free_at if too_early > 0 else free_at + interval
            if len(self._free_at) > self._keys:
                self._free_at.popitem(last=False)
        return max(too_early, 0.0)

    def __len__(self) -> int:
        return len(self._free_at)


_conversations = Cap()
_messages = Cap()


def wait_to_begin(channel: ChannelConfig, request: HttpRequest) -> float:
    """Return the seconds until this address may begin a conversation here; 0.0 counts one now."""
    per_hour = new_per_hour(channel)
    if not per_hour:
        return 0.0
    return _conversations.wait((channel.id, client_address(request)), 3600 / per_hour, max(per_hour // 6, 1))


def wait_to_write(channel: ChannelConfig, visitor: str) -> float:
    """Return the seconds until this visitor may write again; 0.0 counts one now."""
    return _messages.wait((channel.id, visitor), MESSAGE_SECONDS, MESSAGE_BURST)


def new_per_hour(channel: ChannelConfig) -> int:
    """Return the option ``new_per_hour``; 0 means no limit."""
    try:
        return max(int(channel.options.get("new_per_hour", NEW_PER_HOUR)), 0)
    except (TypeError, ValueError):
        return NEW_PER_HOUR
