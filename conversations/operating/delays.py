"""Measures the mean delay of the newest messages in each part.

It shows which process to add (docs/scaling.md).
"""

from __future__ import annotations

from conversations import runtime
from conversations.postgres.sql_files import sql

# In the order of the flow; columns of read_times.sql.
PARTS = {
    "lane": "behind earlier messages of the same person, or until their order was known",
    "worker": "ready, until a worker took it",
    "bot": "in the bot",
    "sender": "a reply ready, until a sender took it and the rate limits allowed it",
    "platform": "in the platform's call, until its result was written",
}


def read() -> dict[str, float]:
    """Return the mean seconds spent in each part by the newest messages of the last five minutes.

    Parts that none of them passed are left out. Raises ``psycopg.Error``.
    """
    (row, *_) = runtime.read(sql("read_times"))
    return {part: round(seconds, 3) for part, seconds in zip(PARTS, row, strict=True) if seconds is not None}
