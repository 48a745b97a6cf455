"""What platforms say of our replies: unordered, upgrade-only, joined to the reply whenever it becomes known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
import psycopg

from conversations.concurrency import Timer
from conversations.contracts import ChannelConfig, StatusUpdate
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Stream, as_json

LOOK_AGAIN_SECONDS = 3.0  # more than a sender's transaction may take
LOOKING = 10_000

Said = tuple[ChannelConfig, StatusUpdate]


class StatusStream(Stream[Said, str]):
    """One transaction per batch of statuses. Results: joined, or kept: their reply is not known yet."""

    name = "statuses"
    patient = False

    def lane(self, item: Said) -> Hashable:
        return item[0].id, item[1].platform_id or item[1].key

    def mend(self, item: Said, error: psycopg.Error) -> Said | None:
        channel, update = item
        return (channel, msgspec.structs.replace(update, error="")) if update.error else None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Said]) -> Sequence[str | LaneLocked]:
        values = {"items": as_json([_values(place, *item) for place, item in enumerate(items)])}
        statements: dict[str, database.Statement] = {
            "lock": (sql("lock_status_lanes"), values),
            "apply": (sql("apply_statuses"), values),
        }
        rows = database.transaction(connection, statements)["apply"]
        return [LANE_LOCKED if word == "busy" else word for _, word in rows]


def _values(place: int, channel: ChannelConfig, update: StatusUpdate) -> dict[str, Any]:
    """A platform that gives our own key back instead of its id: the key is the reply's platform id there."""
    return {
        "ord": place,
        "channel_id": channel.id,
        "platform_id": clean_text(update.platform_id or update.key, 300),
        "status": clean_text(update.status)[:10],
        "error": clean_text(update.error, 500),
    }


STATUSES = StatusStream()


# ---------------------------------------------------------------- looking again


def look_again(write: Callable[[Said], None], unknown: Sequence[Said]) -> None:
    """Write ``unknown`` once more in a moment.

    A status that came while the result of its reply was being written was not seen by the one, nor the
    reply's id by the other: each looked before the other's COMMIT.
    """
    timer = _timer()
    for item in unknown:
        if len(timer) < LOOKING:
            timer.call_later(LOOK_AGAIN_SECONDS, functools.partial(write, item))


@functools.cache
def _timer() -> Timer:
    return Timer("statuses")
