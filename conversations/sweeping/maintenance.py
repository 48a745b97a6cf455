"""Upkeep: creates and drops partitions of raw bodies, and deletes rows that are past their
retention.

No message depends on it to be stored, handled or delivered.
"""

from __future__ import annotations

import datetime as dt

import psycopg
import structlog
from django.conf import settings

from conversations.errors import CoreError
from conversations.postgres import database

log = structlog.get_logger(__name__)

# Daily partitions created in advance. More: upkeep may fail for more days before rows go to the
# default one.
DAYS_AHEAD = 7
# Rows deleted per table and round. More: a backlog of old rows shrinks faster, with longer
# transactions.
BATCH_ROWS = 5_000


def run() -> dict[str, int]:
    """Do all upkeep that is due, and return counts. What fails is tried again in the next round."""
    return {
        "made": make_partitions(),
        "dropped": drop_partitions(),
        "workers": forget_dead(),
        "statuses": forget_statuses(),
        "results": forget_results(),
        "buckets": forget_buckets(),
    }


def make_partitions(today: dt.date | None = None) -> int:
    """Create a partition per day, ``DAYS_AHEAD`` days ahead.

    If one is missing, the default one takes its rows.
    """
    first = today or dt.datetime.now(dt.UTC).date()
    return sum(_make(first + dt.timedelta(days=ahead)) for ahead in range(1, DAYS_AHEAD + 1))


def drop_partitions(today: dt.date | None = None) -> int:
    """Drop partitions older than ``RAW_BODY_DAYS``; delete such rows of the default one."""
    limit = (today or dt.datetime.now(dt.UTC).date()) - dt.timedelta(days=settings.RAW_BODY_DAYS)
    rows = database.read("SELECT relname FROM pg_class WHERE relname ~ '^receipt_body_[0-9]{8}$' AND relkind = 'r'")
    old = [name for (name,) in rows if name[-8:] < limit.strftime("%Y%m%d")]
    dropped = sum(_alone(f"DROP TABLE {name}") for name in old)
    _alone(f"DELETE FROM receipt_body_default WHERE received_at < '{limit:%Y-%m-%d}'")  # noqa: S608  (a date)
    return dropped


def forget_dead() -> int:
    """Delete the rows of workers that died more than a day ago."""
    rows = database.execute("DELETE FROM worker WHERE dead AND beat_at < now() - interval '1 day' RETURNING 1")
    return len(rows)


def forget_statuses() -> int:
    """Delete status rows after a month. Ids grow with time, so only the oldest ids are read."""
    oldest = f"SELECT id, received_at FROM status ORDER BY id LIMIT {BATCH_ROWS}"  # noqa: S608
    over = f"SELECT id FROM ({oldest}) s WHERE received_at < now() - interval '30 days'"  # noqa: S608  (our own words)
    return len(database.execute(f"DELETE FROM status WHERE id = ANY (ARRAY({over})) RETURNING 1"))  # noqa: S608


def forget_results() -> int:
    """Delete results of tasks after a week."""
    return _forget("django_celery_results_taskresult", "date_done", "7 days")


def forget_buckets() -> int:
    """Delete blocks of the rate limiter a day after they ended."""
    return _forget("bucket", "blocked_until", "1 day")


def _forget(table: str, column: str, age: str) -> int:
    """Delete a batch only: the sweeper needs this connection."""
    old = f"SELECT id FROM {table} WHERE {column} < now() - interval '{age}' LIMIT {BATCH_ROWS}"  # noqa: S608  (our own words)
    return len(database.execute(f"DELETE FROM {table} WHERE id IN ({old}) RETURNING 1"))  # noqa: S608


def _make(day: dt.date) -> int:
    name = f"receipt_body_{day:%Y%m%d}"
    if database.read("SELECT 1 FROM pg_class WHERE relname = %(name)s", {"name": name}):
        return 0
    after = day + dt.timedelta(days=1)
    return _alone(f"CREATE TABLE {name} PARTITION OF receipt_body FOR VALUES FROM ('{day}') TO ('{after}')")


def _alone(statement: str) -> int:
    """Run a statement that waits 200 ms for a lock at most: it must delay no webhook."""
    try:
        database.execute(f"SET lock_timeout = '200ms'; {statement}; RESET lock_timeout")
    except (psycopg.Error, CoreError) as error:
        log.warning("upkeep failed", error=type(error).__name__)
        return 0
    return 1
