"""Replies that an http bot posts after its turn: each takes the next number of its lane.

**Invariant:** a reply with a key that is stored already is the same reply. One that comes after a
take-over is a draft.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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

# Seconds until COMMIT, at most; then the bot is answered 503 and must repeat its request. Larger: a
# request thread is busy for longer while the database is away. Smaller: more replies are refused.
STORE_SECONDS = 2.5
# Parts of one reply, at most. Larger: a faulty bot can send a person more messages. Smaller: a bot
# must put less into each reply.
MAX_PARTS = 100
# Stands between a reply's key and the number of a part in the part's key. Keys are printable, so no
# bot can send a key that looks like that of a part.
PART = "\x1f"


class LateReply(Struct, frozen=True):
    """One reply to an earlier turn.

    ``turn``: the id of the turn's message. ``key``: the bot's own, unique in its channel.
    """

    turn: int
    key: str
    bodies: tuple[ReplyBody, ...]


class LateItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A reply and its parts, as ``store_late_replies.sql`` reads them.

    ``ord``: index in the batch. ``message_id``: the message of the turn. ``parts``: key and body of
    each. ``tenant_id`` is not read there.
    """

    ord: int = -1
    tenant_id: int
    channel_id: int
    message_id: int
    parts: list[dict[str, Any]]


def store(channel: ChannelConfig, late: LateReply) -> str:
    """Store a reply and wake its lane. Return '', or why it can never be stored.

    A text that is too long for the platform becomes several parts. Raises ``Busy`` or
    ``NotStored``, also while the turn is not committed yet: the bot has to repeat its request.
    """
    split = registry.adapter(channel.platform).split
    bodies = [part for body in late.bodies for part in split(body)]
    if len(bodies) > MAX_PARTS:
        return f"it has more than {MAX_PARTS} parts"
    keys = [late.key, *(f"{late.key}{PART}{number}" for number in range(2, len(bodies) + 1))]
    parts = [{"key": key, "body": body} for key, body in zip(keys, bodies, strict=True)]
    item = LateItem(tenant_id=channel.tenant_id, channel_id=channel.id, message_id=late.turn, parts=parts)
    verdict, lane = intake.writer().write(LATE, item, timeout=STORE_SECONDS)
    if verdict == "early":
        raise NotStored("its turn is not committed yet")
    if verdict == "stored":
        wake.send([lane], channel.tenant_id)
    return "its turn is none of this channel's" if verdict == "unknown" else ""


class LateStream(Stream[LateItem, tuple[str, int]]):
    """One transaction per batch. Results: verdict (stored, duplicate, unknown, early), lane id."""

    name = "late replies"
    patient = False

    def lane(self, item: LateItem) -> Hashable:
        """Return the turn's message: its conversation is known only to the statement."""
        return item.message_id

    def owner(self, item: LateItem) -> Hashable:
        return item.tenant_id

    def write(
        self, connection: psycopg.Connection[Any], items: Sequence[LateItem]
    ) -> Sequence[tuple[str, int] | LaneLocked]:
        for place, item in enumerate(items):
            item.ord = place
        values = {"items": as_json(items)}
        statements = {"lock": (sql("lock_late_replies"), values), "store": (sql("store_late_replies"), values)}
        rows = sorted(database.transaction(connection, statements)["store"])
        return [LANE_LOCKED if verdict == "busy" else (verdict, lane) for _, verdict, lane in rows]


LATE = LateStream()
