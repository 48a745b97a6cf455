"""Acts: a pressed button is acknowledged, and a turn that takes long shows that we type and have read.

An act is not a message: it has no place in a lane, nobody waits for it, and losing one does no harm.

Acts stay out of the rate limits on purpose. A bucket spaces sends (a second in a chat of Telegram),
so an act that is counted there would delay the reply that it announces. Few threads bound the acts
instead, and what is refused is not shown again in the same turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import structlog

from conversations import installation, registry, runtime
from conversations.contracts import ChannelConfig
from conversations.telemetry import error_places

log = structlog.get_logger(__name__)

# Acts of a kind that run at the same time, in threads. Larger: a slow platform delays other
# platforms' acts less; smaller: fewer threads, and fewer calls besides the replies.
THREADS = 4
# Acts of a kind that run or wait at most; further ones are dropped. Larger: a platform that hangs
# costs more memory; smaller: a burst of button presses loses some.
WAITING = 64
# Seconds before the end of what a platform shows in which it is shown again. Larger: more calls in a
# long turn; smaller than the tick of ``TurnRunner`` (1 s): it goes out in between.
EARLIER_SECONDS = 1.0


class SlowTurn(Protocol):
    """What is read of a turn that takes long, and when it must be shown again."""

    channel: ChannelConfig
    head: Any
    typing_at: float


class Acts:
    """The threads for one kind of act, so that one kind that hangs delays no other."""

    def __init__(self, name: str) -> None:
        self._slots = threading.BoundedSemaphore(WAITING)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=name)

    def start(self, act: Callable[..., object], channel: ChannelConfig, *details: Any) -> bool:
        """Run an act on another thread, and return at once. Return False if too many wait."""
        if not self._slots.acquire(blocking=False):
            return False
        try:
            call = self._threads.submit(_try, act, channel, *details)
        except RuntimeError:  # the system allows no more threads
            self._slots.release()
            return False
        call.add_done_callback(lambda _: self._slots.release())
        return True


_acknowledging = runtime.kept(lambda: Acts("act"))
_typing = runtime.kept(lambda: Acts("typing"))


def acknowledge(channel: ChannelConfig, user: str, chat: str, is_group: bool, data: Mapping[str, Any]) -> None:
    """Acknowledge a button press to its platform. Drops the press if too many wait."""
    _acknowledging().start(_acknowledge, channel, user, chat, is_group, data)


def show_typing(turn: SlowTurn, is_running: Callable[[], bool]) -> bool:
    """Show that an answer is being written, and that the message was read, if the turn still runs then.

    Return False if too many acts wait. Sets its ``typing_at``: when it must be shown again.
    """
    return _typing().start(_show_typing, turn.channel, turn, is_running)


def _try(act: Callable[..., object], channel: ChannelConfig, *details: Any) -> None:
    """Make the call to the platform. A failure is only logged: the turn runs all the same."""
    try:
        act(channel, *details)
    except Exception as error:
        kind, place = error_places.kind(error), error_places.place(error)
        log.info("act failed", verb=act.__name__, channel=channel.id, error=kind, place=place)


def _acknowledge(channel: ChannelConfig, user: str, chat: str, is_group: bool, data: Mapping[str, Any]) -> None:
    if installation.may_send_to(channel, user, chat, is_group):
        registry.adapter(channel.platform).acknowledge(channel, data)


def _show_typing(channel: ChannelConfig, turn: SlowTurn, is_running: Callable[[], bool]) -> None:
    head = turn.head
    if is_running() and installation.may_send_to(channel, head.user, head.chat, head.is_group):
        adapter = registry.adapter(channel.platform)
        shown_for = adapter.show_typing(channel, head.address or {}, head.platform_id or "")
        if shown_for:
            turn.typing_at = time.monotonic() + max(shown_for - EARLIER_SECONDS, EARLIER_SECONDS)
