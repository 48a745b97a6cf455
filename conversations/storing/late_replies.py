"""Replies that an http bot posts after its turn: each gets its lane's next number when it is stored.

**Invariant:** a reply that comes again with its key is the same reply; one after a take-over is a draft.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from conversations import registry
from conversations.contracts import ChannelConfig, ReplyBody, Struct
from conversations.errors import NotStored
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Stream, as_json
from conversations.storing import intake
from conversations.waking import wake

STORE_SECONDS = 2.5
PART = "\x1f"  # between a reply's key and the number of its part; no key holds it


class LateReply(Struct, frozen=True):
    """One reply for an earlier turn. ``turn``: the number of its message; ``key``: the bot's own, once per channel."""

    turn: int
    key: str
    bodies: tuple[ReplyBody, ...]


class Item(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of a reply, as ``store_late_replies.sql`` reads it."""

    ord: int = -1
    channel_id: int
    message_id: int
    parts: list[dict[str, Any]]


def store(channel: ChannelConfig, late: LateReply) -> bool:
    """Store it, and wake; False where the turn is none of this channel's.

    Raises ``Busy`` or ``NotStored`` (also while its turn is not committed): the bot comes again.
    """
    split = registry.adapter(channel.platform).split
    bodies = [part for body in late.bodies for part in split(body)]
    keys = [late.key, *(f"{late.key}{PART}{number}" for number in range(2, len(bodies) + 1))]
    parts = [{"key": key, "body": body} for key, body in zip(keys, bodies, strict=True)]
    item = Item(channel_id=channel.id, message_id=late.turn, parts=parts)
    verdict, lane = intake.writer().write(LATE, item, timeout=STORE_SECONDS)
    if verdict == "early":
        raise NotStored("its turn is not committed yet")
    if verdict == "stored":
        wake.send([lane], channel.tenant_id)
    return bool(verdict != "unknown")


class LateStream(Stream[Item, tuple[str, int]]):
    """One transaction for the late replies of many lanes."""

    name = "late replies"
    patient = False

    def lane(self, item: Item) -> Hashable:
        return item.message_id

    def write(
        self, connection: psycopg.Connection[Any], items: Sequence[Item]
    ) -> Sequence[tuple[str, int] | LaneLocked]:
        for place, item in enumerate(items):
            item.ord = place
        values = {"items": as_json(items)}
        statements: Mapping[str, database.Statement] = {
            "lock": (sql("lock_late_replies"), values),
            "store": (sql("store_late_replies"), values),
        }
        rows = sorted(database.transaction(connection, statements)["store"])
        return [LANE_LOCKED if verdict == "busy" else (verdict, lane) for _, verdict, lane in rows]


LATE = LateStream()
