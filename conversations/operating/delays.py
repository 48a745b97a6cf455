"""Where the time of the newest messages went, by part: it tells which process to add (docs/scaling.md)."""

from __future__ import annotations

from conversations.postgres import database
from conversations.postgres.sql_files import sql

# In the order of the flow; columns of read_times.sql.
PARTS = {
    "lane": "behind earlier messages of the same person, or until their order was known",
    "worker": "ready, until a worker had it",
    "bot": "in the bot",
    "sender": "a reply ready, until a sender had it and the limits let it go",
    "platform": "in the platform's call, until its result was written",
}


def read() -> dict[str, float]:
    """Mean seconds by part, of the last minutes; a part without any is not there. Raises ``psycopg.Error``."""
    (row, *_) = database.read(sql("read_times"))
    return {part: round(seconds, 3) for part, seconds in zip(PARTS, row, strict=True) if seconds is not None}
