"""Upkeep: creates and drops partitions of raw bodies, and deletes rows that are past their
retention.

No message depends on it to be stored, handled or delivered.
"""

from __future__ import annotations

import datetime as dt

import psycopg
import structlog
from django.conf import settings

from conversations import runtime
from conversations.errors import CoreError
from conversations.media import retention

log = structlog.get_logger(__name__)

# Days for which partitions are created in advance. Larger: more empty partitions; smaller:
# rows go to the default partition sooner if upkeep fails.
DAYS_AHEAD = 7
# Most rows deleted per table and round. Larger: old rows go sooner, in longer transactions;
# smaller: a table may grow faster than it is cleaned.
BATCH_ROWS = 5_000


def run() -> dict[str, int]:
    """Do all upkeep that is due; return counts. A partition that fails waits for the next round."""
    return {
        "made": make_partitions(),
        "dropped": drop_partitions(),
        "workers": forget_dead(),
        "statuses": forget_statuses(),
        "results": _forget("django_celery_results_taskresult", "date_done", "7 days"),  # of Celery's tasks
        "buckets": _forget("bucket", "blocked_until", "1 day"),  # blocks of the rate limiter
        "logins": forget_logins(),
        "files": forget_files(),
    }


def make_partitions() -> int:
    """Create the missing daily partitions of the next ``DAYS_AHEAD`` days; return how many.

    Rows of a day without its own go to the default partition, where old rows must be
    deleted row by row.
    """
    first = _today()
    return sum(_make(first + dt.timedelta(days=ahead)) for ahead in range(1, DAYS_AHEAD + 1))


def drop_partitions() -> int:
    """Drop partitions older than ``RAW_BODY_DAYS``; delete such rows of the default partition."""
    limit = _today() - dt.timedelta(days=settings.RAW_BODY_DAYS)
    rows = runtime.read("SELECT relname FROM pg_class WHERE relname ~ '^receipt_body_[0-9]{8}$' AND relkind = 'r'")
    old = [name for (name,) in rows if name[-8:] < limit.strftime("%Y%m%d")]
    dropped = sum(_alone(f"DROP TABLE {name}") for name in old)
    _alone(f"DELETE FROM receipt_body_default WHERE received_at < '{limit:%Y-%m-%d}'")  # noqa: S608  (a date)
    return dropped


def forget_dead() -> int:
    """Delete the rows of workers that died more than a day ago."""
    rows = runtime.execute("DELETE FROM worker WHERE dead AND beat_at < now() - interval '1 day' RETURNING 1")
    return len(rows)


def forget_statuses() -> int:
    """Delete a batch of status rows that are older than 30 days.

    Ids grow with time: reading only the smallest ids needs no index on the time.
    """
    oldest = f"SELECT id, received_at FROM status ORDER BY id LIMIT {BATCH_ROWS}"  # noqa: S608
    over = f"SELECT id FROM ({oldest}) s WHERE received_at < now() - interval '30 days'"  # noqa: S608  (our own words)
    return len(runtime.execute(f"DELETE FROM status WHERE id = ANY (ARRAY({over})) RETURNING 1"))  # noqa: S608


def forget_logins() -> int:
    """Delete failed logins after a day, and sessions that are over. Strangers can cause the former.

    A project without the pages of staff has no such tables.
    """
    tables = (("axes_accessattempt", "attempt_time", "1 day"), ("django_session", "expire_date", "0 s"))
    there = {name for (name,) in runtime.read("SELECT relname FROM pg_class WHERE relkind = 'r'")}
    return sum(_forget(*each) for each in tables if each[0] in there)


def forget_files() -> int:
    """Delete files that are old, or of no message. A project without a storage for them has none."""
    return retention.run() if "media" in settings.STORAGES else 0


def _forget(table: str, column: str, age: str) -> int:
    """Delete a batch of rows older than ``age``: more would keep the sweeper's connection busy."""
    old = f"SELECT ctid FROM {table} WHERE {column} < now() - interval '{age}' LIMIT {BATCH_ROWS}"  # noqa: S608  (our own words)
    return len(runtime.execute(f"DELETE FROM {table} WHERE ctid = ANY (ARRAY({old})) RETURNING 1"))  # noqa: S608


def _today() -> dt.date:
    """Return the database's date, by whose clock the rows were written."""
    ((day,), *_) = runtime.read("SELECT (now() AT TIME ZONE 'UTC')::date")
    return day


def _make(day: dt.date) -> int:
    """Create the partition of one day unless it exists. Return 1 if it was created, else 0."""
    name = f"receipt_body_{day:%Y%m%d}"
    if runtime.read("SELECT 1 FROM pg_class WHERE relname = %(name)s", {"name": name}):
        return 0
    after = day + dt.timedelta(days=1)
    return _alone(f"CREATE TABLE {name} PARTITION OF receipt_body FOR VALUES FROM ('{day}') TO ('{after}')")


def _alone(statement: str) -> int:
    """Run one statement by itself. Return 1, or 0 if it failed.

    It waits for a lock 200 ms at most: webhooks that insert rows would wait behind it.
    """
    try:
        runtime.execute(f"SET LOCAL lock_timeout = '200ms'; {statement}")
    except (psycopg.Error, CoreError) as error:
        log.warning("upkeep failed", error=type(error).__name__)
        return 0
    return 1
