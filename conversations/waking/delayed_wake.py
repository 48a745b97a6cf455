"""A wake at the end of a settle window, at most 2 s away; the sweeper finds what waits longer."""

from __future__ import annotations

import functools

from conversations.concurrency import Timer
from conversations.waking import wake

# The sweeper looks every 2 s, so that a longer delay here would save little. Longer: more delays in
# memory.
LONGEST_SECONDS = 2.0


def wake_later(conversation_id: int, tenant_id: int, seconds: float) -> None:
    """Wake a lane in ``seconds``. Do nothing if that is more than ``LONGEST_SECONDS``."""
    if seconds <= LONGEST_SECONDS:
        _timer().call_later(seconds + 0.005, functools.partial(wake.handle, [conversation_id], tenant_id))


@functools.cache
def _timer() -> Timer:
    return Timer("countdown")
