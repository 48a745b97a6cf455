"""A platform that failed and works again: what waits for its next try need not wait any longer.

Waits grow with each failure of a reply, to five minutes. A channel where all fails is paused (``pauses``), and its
first success releases all. Where some calls succeed all the while, nothing is paused, and so each sender counts for
itself: so many successes in a row, and no failure for a while, make the channel's waiting heads due.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import psycopg
import structlog

from conversations import database
from conversations.errors import CoreError
from conversations.sqlfiles import sql

log = structlog.get_logger(__name__)

SUCCESSES = 8
QUIET_SECONDS = 10.0  # without a failure: a platform that flaps must not spend a reply's attempts
LANES = 1_000  # at once; after as many successes again, the next


@dataclass(slots=True)
class Streak:
    failed_at: float
    successes: int = 0


_lock = threading.Lock()
_streaks: dict[int, Streak] = {}  # of channels that failed lately


def failed(channel_id: int) -> None:
    with _lock:
        _streaks[channel_id] = Streak(time.monotonic())


def succeeded(channel_id: int) -> None:
    """It costs nothing where nothing failed."""
    streak = _streaks.get(channel_id)
    if streak is None or not _is_well(streak):
        return
    try:
        ended = len(database.execute(sql("end_waits"), {"channel": channel_id, "lanes": LANES}))
    except (psycopg.Error, CoreError) as error:
        log.warning("waits not ended", channel=channel_id, error=type(error).__name__)
        return
    if ended:
        log.info("works again: waits ended", channel=channel_id, lanes=ended)
    with _lock:
        if ended < LANES and _streaks.get(channel_id) is streak:
            del _streaks[channel_id]


def _is_well(streak: Streak) -> bool:
    with _lock:
        streak.successes += 1
        if streak.successes < SUCCESSES or time.monotonic() - streak.failed_at < QUIET_SECONDS:
            return False
        streak.successes = 0
        return True
