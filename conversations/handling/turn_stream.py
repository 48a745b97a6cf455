"""Writes verdicts, and numbers messages that waited for their place in the platform's order.

**Invariant:** a verdict names the lane as it was read; ``sql/commit_turns.sql`` writes it only where that still holds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from conversations.handling.verdicts import Finished, failure
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Stream, as_json

# From commit_turns.sql: "committed" or "moved"; if more messages wait; if a sender is to be woken.
Committed = tuple[str, bool, bool]


class TurnStream(Stream[Finished, Committed]):
    """Writes the finished turns of many lanes in one transaction."""

    name = "turns"
    patient = True

    def lane(self, item: Finished) -> Hashable:
        return item.verdict.id

    def owner(self, item: Finished) -> Hashable:
        return item.head.tenant_id

    def mend(self, item: Finished, error: psycopg.Error) -> Finished | None:
        """Turn a result that the database refuses into a failed attempt; the last one parks it.

        Otherwise the same refusal would come for ever.
        """
        verdict, turn = item.verdict, item.verdict.turn
        if turn is None or item.channel is None:
            return None
        if turn["outcome"] != "committed":  # the failed attempt was refused: write it without details
            note = "the database refused what was to be noted"
            bare = msgspec.structs.replace(verdict, turn=None, replies=None, note=note)
            return Finished(bare, item.head, item.channel)
        words = {"error_type": "DatabaseRefused", "error_place": error.sqlstate or ""}
        record = {**turn, **words, "outcome": "failed", "log": None}
        return Finished(failure(item.head, item.channel, record, False), item.head, item.channel)

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Finished]) -> Sequence[Committed | LaneLocked]:
        """Write the verdicts, each only where its lane is as it was read (compare-and-set)."""
        verdicts = [item.verdict for item in items]
        for number, verdict in enumerate(verdicts):
            verdict.ord = number
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": [verdict.id for verdict in verdicts]}),
            "turns": (sql("commit_turns"), {"items": as_json(verdicts)}),
        }
        rows = sorted(database.transaction(connection, statements, point="T5")["turns"])
        return [LANE_LOCKED if word == "busy" else (word, behind, to_wake) for _, word, behind, to_wake in rows]


class ReleaseStream(Stream[int, str]):
    """Gives waiting messages their numbers when a settle window or a gap ends."""

    name = "release"
    patient = True

    def lane(self, item: int) -> Hashable:
        return item

    def write(self, connection: psycopg.Connection[Any], items: Sequence[int]) -> Sequence[str | LaneLocked]:
        """Number the waiting messages of the lanes that the lock statement could lock."""
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": list(items)}),
            "release": (sql("release_lanes"), {"ids": None}),
        }
        ((locked,),) = database.transaction(connection, statements)["lock"]
        ours = set(locked.split(","))
        return ["released" if str(item) in ours else LANE_LOCKED for item in items]


TURNS = TurnStream()
RELEASE = ReleaseStream()
