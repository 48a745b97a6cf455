"""What platforms say of our replies: unordered, upgrade-only, joined to the reply whenever it becomes known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec
import psycopg

from conversations import database
from conversations.clean import clean_text
from conversations.contracts import ChannelConfig, StatusUpdate
from conversations.sqlfiles import sql


class StatusStream:
    """One transaction per batch of statuses."""

    name = "statuses"
    patient = False

    def lane(self, item: tuple[ChannelConfig, StatusUpdate]) -> Hashable:
        return item[0].id, item[1].platform_id or item[1].key

    def mend(self, item: tuple[ChannelConfig, StatusUpdate], error: psycopg.Error) -> Any | None:
        channel, update = item
        return (channel, msgspec.structs.replace(update, error="")) if update.error else None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[tuple[ChannelConfig, StatusUpdate]]) -> Sequence[Any]:
        statements: dict[str, database.Statement] = {}
        for place, (channel, update) in enumerate(sorted(items, key=self.lane)):
            values = _values(channel, update)
            statements[f"lock {place}"] = (sql("lock_status_lane"), values)
            statements[f"apply {place}"] = (sql("apply_status"), values)
        database.transaction(connection, statements)
        return ["stored"] * len(items)


def _values(channel: ChannelConfig, update: StatusUpdate) -> dict[str, Any]:
    """A platform that gives our own key back instead of its id: the key is the reply's platform id there."""
    return {
        "channel_id": channel.id,
        "platform_id": clean_text(update.platform_id or update.key, 300),
        "status": update.status[:10],
        "error": clean_text(update.error, 500),
    }


STATUSES = StatusStream()
