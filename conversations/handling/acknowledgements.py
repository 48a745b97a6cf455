"""Acknowledges button presses, so that the platform stops its spinner.

Nobody waits for it, and losing one does no harm: it is not a message.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from conversations import installation, registry
from conversations.contracts import ChannelConfig
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Acknowledgements at once. More: a slow platform delays others less.
THREADS = 4
# Acknowledgements that run or wait at most; further ones are dropped. More: a platform that hangs
# costs memory.
WAITING = 64

_slots = threading.BoundedSemaphore(WAITING)
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="act")


def acknowledge(channel: ChannelConfig, user: str, chat: str, data: Mapping[str, Any]) -> None:
    """Acknowledge an entry to its platform, on another thread. Returns at once."""
    if _slots.acquire(blocking=False):
        _threads.submit(_acknowledge, channel, user, chat, data)


def _acknowledge(channel: ChannelConfig, user: str, chat: str, data: Mapping[str, Any]) -> None:
    try:
        if installation.may_send_to(user, chat):
            registry.adapter(channel.platform).acknowledge(channel, data)
    except Exception as error:
        log.info(
            "not acknowledged", channel=channel.id, error=error_places.kind(error), place=error_places.place(error)
        )
    finally:
        _slots.release()
