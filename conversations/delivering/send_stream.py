"""Writes results of replies k together with intents of replies k+1.

**Invariant:** a result is written only where the reply is still in the attempt that was made; an intent only
where nothing before it is unsettled (``sql/commit_sends.sql``).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Any

import msgspec
import psycopg

from conversations.delivering.results import Step, Written
from conversations.failpoints import failpoint
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Stream, as_json


class SendStream(Stream[Step, Written]):
    """Writes results and intents of many lanes in one transaction."""

    name = "sends"
    patient = True
    small = True

    def lane(self, item: Step) -> Hashable:
        return item.id

    def owner(self, item: Step) -> Hashable:
        return item.channel_id

    def mend(self, item: Step, error: psycopg.Error) -> Step | None:
        """Return a result that the database refused without the platform's words, the likely cause.

        Without those words it was refused for another reason: None, and the item fails.
        """
        if item.error is None and not item.platform_id:
            return None
        return msgspec.structs.replace(item, error=None, platform_id=None, new_chat=None)

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Step]) -> Sequence[Written | LaneLocked]:
        """Write results and intents, each behind its compare-and-set; ``Written`` says what was."""
        begun_at = time.monotonic()
        for number, item in enumerate(items):
            item.ord = number
        statements: dict[str, database.Statement] = {
            "lock": (sql("lock_ids"), {"ids": [item.id for item in items]}),
            "sends": (sql("commit_sends"), {"items": as_json(items)}),
        }
        if stops := [_stop(item) for item in items if item.stops]:
            statements["stops"] = (sql("stop_lanes"), {"items": as_json(stops)})
        rows = sorted(database.transaction(connection, statements)["sends"])
        if any(item.reply_id is not None for item in items):
            failpoint("D4")
        return [
            LANE_LOCKED if busy else Written(result, intent, status, more, begun_at)
            for _, result, intent, busy, status, more in rows
        ]


def _stop(item: Step) -> dict[str, Any]:
    """Return what a refusal stops, as ``stop_lanes.sql`` reads it."""
    return {"reply_id": item.reply_id, "scope": item.stops, "window_s": item.window_s}


SENDS = SendStream()
