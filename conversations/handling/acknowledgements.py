"""Acts that are no messages (stop a button's spinner): told at once, never waited for, lost without harm."""

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

THREADS = 4
WAITING = 64  # more than that are not told: a platform that hangs costs no memory

_room = threading.BoundedSemaphore(WAITING)
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="act")


def acknowledge(channel: ChannelConfig, user: str, chat: str, data: Mapping[str, Any]) -> None:
    """Tell the platform that we saw what this entry says; returns at once."""
    if _room.acquire(blocking=False):
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
        _room.release()
