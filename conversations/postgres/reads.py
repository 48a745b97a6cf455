"""Reads that ride with the committer's batches, so that they need no second connection."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import psycopg

from conversations.postgres import database
from conversations.postgres.committer import Committer
from conversations.postgres.database import Row, Statement
from conversations.postgres.stream import Stream

# Seconds until a read fails. Larger: request threads wait longer while the database is away.
# Smaller: a short failure of Postgres fails more reads.
READ_SECONDS = 2.5


class Statements(Stream[Statement, list[Row] | psycopg.Error]):
    """Single statements, each in a transaction of its own."""

    name = "statements"
    patient = False
    short = True

    def lane(self, item: Statement) -> Hashable:
        return id(item)  # a lane of its own: reads need no order

    def write(
        self, connection: psycopg.Connection[Any], items: Sequence[Statement]
    ) -> Sequence[list[Row] | psycopg.Error]:
        """Return the rows or the error of each; an error undoes only its own statement."""
        return database.each(connection, items)


STATEMENTS = Statements()


def read(committer: Committer, statements: Sequence[Statement]) -> list[list[Row]]:
    """Return the rows of each statement, read on ``committer``'s connection. Raises the first error."""
    return database.rows_of(committer.write_all(STATEMENTS, statements, timeout=READ_SECONDS))
