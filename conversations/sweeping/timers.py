"""Due timers become messages of their lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Stream

# Oldest first. More than 100 at once would keep the sweeper from its other steps; the rest follows
# in the next round.
TIMERS_DUE = "SELECT id FROM timer WHERE due_at <= now() ORDER BY due_at LIMIT 100"


class TimerStream(Stream[int, str]):
    """Turns due timers into messages, each the newest of its lane (conversation); items are ids."""

    name = "timers"
    patient = False

    def lane(self, item: int) -> int:
        return item

    def write(self, connection: psycopg.Connection[Any], items: Sequence[int]) -> Sequence[str]:
        for timer in items:
            values = {"id": timer}
            statements = {"lock": (sql("lock_timer"), values), "fire": (sql("fire_timer"), values)}
            database.transaction(connection, statements)
        return ["fired"] * len(items)


TIMERS = TimerStream()
