"""A platform that failed and works again: what waits for its next try need not wait any longer.

Waits grow with each failure of a reply, to five minutes. A channel where all fails is paused (``pauses``): no attempt
is spent, and no wait grows. Where some calls succeed all the while nothing is paused, and so each sender counts for
itself: so many successes in a row, and no failure for a while, make the channel's waiting heads due. When it fails
again soon, the while is twice as long the next time: what keeps failing has its growing waits after all.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from conversations.contracts import Deferred, Failed, Outcome, Rejected, Scope, Unknown
from conversations.errors import CoreError
from conversations.postgres import database
from conversations.postgres.sql_files import sql

log = structlog.get_logger(__name__)

SUCCESSES = 8
QUIET_SECONDS, LONGEST_QUIET_SECONDS = 10.0, 60.0  # without a failure; doubled by one that comes soon after
LANES = 1_000  # at once
BATCH_SECONDS = 2.0  # until the next: the sweeper finds these, and a failure of one of them keeps the others waiting
NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


@dataclass(slots=True)
class Streak:
    """What a channel did since it failed."""

    failed_at: float
    quiet: float
    successes: int = 0
    batch_at: float = float("-inf")
    before: Any = NEVER  # lanes that would have waited longer are due by now
    nothing_waits: bool = False


_lock = threading.Lock()
_streaks: dict[int, Streak] = {}  # of channels that failed lately


def record_outcome(channel_id: int, outcome: Outcome) -> None:
    """What became of a call. It costs nothing where nothing failed."""
    match outcome:
        case Failed() | Unknown() | Rejected(scope=Scope.CHANNEL, new_chat=""):
            _start_streak(channel_id)
        case Deferred():
            pass
        case _ if (streak := _streaks.get(channel_id)) and not streak.nothing_waits and _count_success(streak):
            _end_waits(channel_id, streak)


def _start_streak(channel_id: int) -> None:
    now, quiet = time.monotonic(), QUIET_SECONDS
    with _lock:
        last = _streaks.get(channel_id)
        if last is not None and now - last.batch_at < LONGEST_QUIET_SECONDS:
            quiet = min(2 * last.quiet, LONGEST_QUIET_SECONDS)
        elif last is not None and now - last.failed_at < LONGEST_QUIET_SECONDS:
            quiet = last.quiet
        _streaks[channel_id] = Streak(now, quiet)


def _count_success(streak: Streak) -> bool:
    now = time.monotonic()
    with _lock:
        streak.successes += 1
        if (
            streak.successes < SUCCESSES
            or now - max(streak.failed_at + streak.quiet, streak.batch_at + BATCH_SECONDS) < 0
        ):
            return False
        streak.batch_at = now
        return True


def _end_waits(channel_id: int, streak: Streak) -> None:
    values = {"channel": channel_id, "before": streak.before, "tried": streak.quiet, "lanes": LANES}
    try:
        [(ended, seen, shortest)] = database.execute(sql("end_waits"), values)
    except (psycopg.Error, CoreError) as error:
        log.warning("waits not ended", channel=channel_id, error=type(error).__name__)
        return
    streak.before = shortest
    streak.nothing_waits = seen < LANES
    if ended:
        log.info("works again: waits ended", channel=channel_id, lanes=ended)
