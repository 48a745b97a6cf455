"""Acknowledges button presses, so that the platform stops its spinner.

Nobody waits for it, and losing one does no harm: it is not a message.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from conversations import installation, registry, runtime
from conversations.contracts import ChannelConfig
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Acknowledgements that run at the same time, in threads. Larger: a slow platform delays other
# platforms' acknowledgements less; smaller: fewer threads.
THREADS = 4
# Acknowledgements that run or wait at most; further ones are dropped. Larger: a platform that hangs
# costs more memory; smaller: a burst of button presses loses some.
WAITING = 64

_slots = runtime.kept(lambda: threading.BoundedSemaphore(WAITING))
_threads = runtime.kept(lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="act"))


def acknowledge(channel: ChannelConfig, user: str, chat: str, is_group: bool, data: Mapping[str, Any]) -> None:
    """Acknowledge a button press to its platform, on another thread.

    Returns at once, so that a slow platform delays no turn. Drops the press if too many wait.
    """
    slots = _slots()
    if slots.acquire(blocking=False):
        call = _threads().submit(_acknowledge, channel, user, chat, is_group, data)
        call.add_done_callback(lambda _: slots.release())


def _acknowledge(channel: ChannelConfig, user: str, chat: str, is_group: bool, data: Mapping[str, Any]) -> None:
    """Make the call to the platform. A failure is only logged: the turn runs all the same."""
    try:
        if installation.may_send_to(channel, user, chat, is_group):
            registry.adapter(channel.platform).acknowledge(channel, data)
    except Exception as error:
        log.info(
            "not acknowledged", channel=channel.id, error=error_places.kind(error), place=error_places.place(error)
        )
