"""A wake at the end of a settle window, at most 2 s away; the sweeper finds what waits longer."""

from __future__ import annotations

import functools

from conversations import runtime
from conversations.waking import wake

# Longest delay, in seconds, that is kept here; the sweeper looks every 2 s and finds what waits
# longer. Longer: more delays in memory, little gain; shorter: the sweeper's rounds delay more
# messages.
LONGEST_SECONDS = 2.0
# Seconds added to a delay, so that the window has surely ended. Longer: messages wait longer;
# shorter: a wake may come too early, and another must follow.
MARGIN_SECONDS = 0.005


def wake_later(conversation_id: int, tenant_id: int, seconds: float) -> None:
    """Wake a lane in ``seconds``. Do nothing if that is more than ``LONGEST_SECONDS``."""
    if seconds <= LONGEST_SECONDS:
        call = functools.partial(wake.handle, [conversation_id], tenant_id)
        runtime.timer().call_later(seconds + MARGIN_SECONDS, call)
