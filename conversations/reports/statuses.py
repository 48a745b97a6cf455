"""What platforms report of our replies: sent, delivered, read, failed.

Statuses come in any order, and what they make of a reply does not depend on it: read is above
delivered, and both are above failed. One that comes before the platform's id of its reply is known
is kept, and joined to the reply later.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
import psycopg

from conversations import registry, runtime
from conversations.contracts import ChannelConfig, Scope, StatusUpdate
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Stream, as_json

# Seconds until a status is written a second time, if its reply was unknown at the first. Larger:
# staff see "delivered" later. Smaller: the second write, too, can come before the COMMIT of the
# sender's transaction, which makes the reply's id known.
AGAIN_SECONDS = 3.0
# Statuses in memory that wait for their second write; further ones are written only once. Larger:
# more memory. Smaller: under load, more replies never show that they were delivered.
WAITING = 10_000

# Scopes of a failure that stop more than the reply that failed. CONVERSATION is not among them: a
# status comes late, and the person may have written since.
WIDER = frozenset({Scope.WINDOW, Scope.MARKETING})

StatusItem = tuple[ChannelConfig, StatusUpdate]


class StatusStream(Stream[StatusItem, tuple[str, int | None]]):
    """One transaction per batch.

    Results: "joined", or "kept" ("repeated", where the status was kept before) if the reply is not
    known yet; and the lane, if it can send now that the status is known. A repeat stops nothing that
    the person has allowed meanwhile. ``again``: what is written is the second write of a new status.
    """

    name = "statuses"
    patient = False

    def __init__(self, again: bool = False) -> None:
        self._again = again

    def lane(self, item: StatusItem) -> Hashable:
        return item[0].id, item[1].platform_id or item[1].key  # as in ``_values``

    def owner(self, item: StatusItem) -> Hashable:
        return item[0].tenant_id

    def mend(self, item: StatusItem, error: psycopg.Error) -> StatusItem | None:
        """Drop the platform's error text: what the status says must not be lost with it."""
        channel, update = item
        return (channel, msgspec.structs.replace(update, error="")) if update.error else None

    def write(
        self, connection: psycopg.Connection[Any], items: Sequence[StatusItem]
    ) -> Sequence[tuple[str, int | None] | LaneLocked]:
        values = {"items": as_json([_values(place, *item) for place, item in enumerate(items)])}
        statements = {"lock": (sql("lock_status_lanes"), values), "apply": (sql("apply_statuses"), values)}
        if stops := [_stop(*item, self._again) for item in items if item[1].scope in WIDER]:
            statements["stops"] = (sql("stop_lanes"), {"items": as_json(stops)})
        rows = database.transaction(connection, statements)["apply"]
        return [LANE_LOCKED if outcome == "busy" else (outcome, lane) for _, outcome, lane in rows]


def _values(place: int, channel: ChannelConfig, update: StatusUpdate) -> dict[str, Any]:
    """Return a status as the statements read it. ``place``: its index in the batch.

    A platform that reports only our own key has no id: there the key is the reply's platform id.
    """
    return {
        "ord": place,
        "channel_id": channel.id,
        "platform_id": clean_text(update.platform_id or update.key, 300),
        "key": _key(update),
        "status": clean_text(update.status)[:10],
        "error": clean_text(update.error, 500),
    }


def _stop(channel: ChannelConfig, update: StatusUpdate, again: bool) -> dict[str, Any]:
    """Return what a failure stops, as ``stop_lanes.sql`` reads it."""
    return {
        "channel_id": channel.id,
        "platform_id": clean_text(update.platform_id or update.key, 300),
        "again": again,
        "scope": update.scope,
        "window_s": registry.adapter(channel.platform).window_seconds,
    }


def _key(update: StatusUpdate) -> str | None:
    """Return the reply's key if the status names it beside the platform's id; None if it is none of ours."""
    if update.platform_id in ("", update.key):
        return None
    try:
        return str(uuid.UUID(update.key))
    except ValueError:
        return None


STATUSES = StatusStream()
AGAIN = StatusStream(again=True)


def write_again(write: Callable[[StatusItem], None], unknown: Sequence[StatusItem]) -> None:
    """Write statuses whose reply is unknown once more, after ``AGAIN_SECONDS``.

    The sender may be writing the reply's platform id in a transaction that is not committed yet:
    then the sender did not see the status, and the status did not see the id. ``write`` queues one
    status and returns.
    """
    timer = runtime.timer()
    for item in unknown:
        if len(timer) < WAITING:
            timer.call_later(AGAIN_SECONDS, functools.partial(write, item))
