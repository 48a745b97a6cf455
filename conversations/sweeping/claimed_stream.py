"""Settles the replies that a dead sender left in ``sending``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg

from conversations import registry
from conversations.delivering import results
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import Stream, as_json


class ClaimedStream(Stream[uuid.UUID, list[int]]):
    """Settles the replies that dead senders claimed; an item is the sender's incarnation.

    Nobody knows whether the platform took them. Each becomes pending (sent again), parked,
    cancelled or unknown, see ``settle_claimed.sql``.
    """

    name = "claimed"
    patient = False

    def lane(self, item: uuid.UUID) -> uuid.UUID:
        return item

    def write(self, connection: psycopg.Connection[Any], items: Sequence[uuid.UUID]) -> Sequence[list[int]]:
        settled = []
        for claim in items:
            lives = as_json(registry.key_lives())
            values = {"claim": claim, "key_life": lives, "attempts": results.ATTEMPTS}
            statements = {"lock": (sql("lock_claimed"), values), "settle": (sql("settle_claimed"), values)}
            settled.append([row[0] for row in database.transaction(connection, statements)["settle"]])
        return settled


CLAIMED = ClaimedStream()
