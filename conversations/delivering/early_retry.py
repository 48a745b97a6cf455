"""Retries early when a platform works again.

A reply waits longer after each failure, up to five minutes. A channel that fails altogether is
paused (``pauses``): its replies spend no attempts, and their waits do not grow. A channel that
fails in part is not paused. For it each sender counts: ``SUCCESSES`` calls in a row and a quiet
time without failures make the channel's waiting replies due at once. If it soon fails again the
next quiet time is twice as long, so that retries of a platform that keeps failing still slow down.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from conversations import runtime
from conversations.contracts import Deferred, Failed, Outcome, Rejected, Scope, Unknown
from conversations.errors import CoreError
from conversations.postgres.sql_files import sql

log = structlog.get_logger(__name__)

# Successes in a row that count as "works again". Larger: later retries, and fewer in vain; smaller:
# the reverse.
SUCCESSES = 8
# Seconds without a failure that "works again" takes, too. A failure soon after doubles the first
# number, up to the second. Longer: later retries, and fewer in vain; shorter: the reverse.
QUIET_SECONDS, LONGEST_QUIET_SECONDS = 10.0, 60.0
# Lanes (conversations) made due at once, longest wait first. Larger: a backlog is retried faster,
# with more load on the platform; smaller: the reverse.
LANES = 1_000
# Seconds until the next LANES are made due. Longer: a first failure among them comes in time to
# stop the rest; shorter: a backlog is retried faster.
BATCH_SECONDS = 2.0
# Later than any wait: the first batch takes lanes however long they wait.
NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


@dataclass(slots=True)
class Streak:
    """What a channel did since its last failure. Times are monotonic seconds."""

    failed_at: float
    quiet: float  # seconds without a failure that must pass
    successes: int = 0
    batch_at: float = float("-inf")
    before: Any = NEVER  # lanes that were to wait longer than this have been made due
    nothing_waits: bool = False


_lock = threading.Lock()


@runtime.kept
def _streaks() -> dict[int, Streak]:
    """Return the streaks of the channels that failed lately, by channel."""
    return {}


def record_outcome(channel_id: int, outcome: Outcome) -> None:
    """Count the outcome of a call. Costs nothing for a channel without failures."""
    match outcome:
        case Failed() | Unknown() | Rejected(scope=Scope.CHANNEL, new_chat=""):
            _start_streak(channel_id)
        case Deferred():
            pass
        case _ if (streak := _streaks().get(channel_id)) and not streak.nothing_waits and _count_success(streak):
            _end_waits(channel_id, streak)


def _start_streak(channel_id: int) -> None:
    """Note a failure: successes count from zero. The quiet time doubles if retries just failed."""
    now, quiet = time.monotonic(), QUIET_SECONDS
    with _lock:
        last = _streaks().get(channel_id)
        if last is not None and now - last.batch_at < LONGEST_QUIET_SECONDS:
            quiet = min(2 * last.quiet, LONGEST_QUIET_SECONDS)
        elif last is not None and now - last.failed_at < LONGEST_QUIET_SECONDS:
            quiet = last.quiet
        _streaks()[channel_id] = Streak(now, quiet)


def _count_success(streak: Streak) -> bool:
    """Count a success. Return True if the next batch of waiting replies should be made due."""
    now = time.monotonic()
    with _lock:
        streak.successes += 1
        due_at = max(streak.failed_at + streak.quiet, streak.batch_at + BATCH_SECONDS)
        if streak.successes < SUCCESSES or now < due_at:
            return False
        streak.batch_at = now
        return True


def _end_waits(channel_id: int, streak: Streak) -> None:
    """Make the next batch of the channel's waiting replies due; the sweeper finds them.

    The next batch begins where this one ended; a batch that is not full was the last.
    """
    values = {"channel": channel_id, "before": streak.before, "tried": streak.quiet, "lanes": LANES}
    try:
        [(ended, seen, shortest)] = runtime.execute(sql("end_waits"), values)
    except (psycopg.Error, CoreError) as error:
        log.warning("waits not ended", channel=channel_id, error=type(error).__name__)
        return
    streak.before = shortest
    streak.nothing_waits = seen < LANES
    if ended:
        log.info("works again: waits ended", channel=channel_id, lanes=ended)
