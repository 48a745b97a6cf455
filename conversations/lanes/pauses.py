"""A failure has an owner: what fails for everybody is paused in one row that says why.

Failures of one bot (or channel) in a row are counted in that row; a success removes it. Eight in a row,
in two conversations or more, stop it. While stopped, failures spend no attempts, and one conversation is
tried now and then (``probe_at``, claimed by the sweeper); the first success releases all.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg
import structlog

from conversations.concurrency import Fresh
from conversations.contracts import Work
from conversations.errors import CoreError
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text

log = structlog.get_logger(__name__)

FAILURES = 8
KNOWN_SECONDS = 0.5

BOT, CHANNEL, TENANT = "bot", "channel", "tenant"


class Key(NamedTuple):
    """Who fails (or was stopped), and at what: ``stops`` is the ``activity`` of a kind of work."""

    scope: str
    target: str
    stops: str


def _read(last: dict[Key, bool]) -> dict[Key, bool]:
    """Every row, True where it stops; what was known while the database is away."""
    try:
        rows = database.execute("SELECT scope, target, stops, since IS NOT NULL FROM pause")
    except (psycopg.Error, CoreError) as error:
        log.warning("pauses not read", error=type(error).__name__)
        return last
    return {Key(*row[:3]): row[3] for row in rows}


_known: Fresh[dict[Key, bool]] = Fresh(_read, KNOWN_SECONDS, first={})
forget = _known.forget


def is_stopped(*keys: Key) -> bool:
    """Whether one of ``keys`` is stopped; at most ``KNOWN_SECONDS`` old, what was known while the database is away."""
    known = _known()
    return bool(known) and any(known.get(key, False) for key in keys)


def handling_keys(bot: str, channel_id: int, tenant_id: int) -> tuple[Key, ...]:
    work = Work.HANDLE.activity
    return Key(BOT, bot, work), Key(CHANNEL, str(channel_id), work), Key(TENANT, str(tenant_id), work)


def sending_keys(channel_id: int, tenant_id: int) -> tuple[Key, ...]:
    return Key(CHANNEL, str(channel_id), Work.SEND.activity), Key(TENANT, str(tenant_id), Work.SEND.activity)


def count_failure(key: Key, conversation_id: int, reason: str, *, at_once: bool = False) -> bool:
    """Count one failure; True when ``key`` is stopped now. ``at_once``: one is enough (a revoked token)."""
    values = {**key._asdict(), "reason": clean_text(reason, 300), "conversation_id": conversation_id,
              "limit": 1 if at_once else FAILURES, "at_once": at_once}  # fmt: skip
    try:
        rows = database.execute(sql("count_failure"), values)
    except (psycopg.Error, CoreError):
        return is_stopped(key)
    _known.change(lambda known: {**known, key: rows[0][0]})
    if rows[0][1]:
        log.error("paused", scope=key.scope, target=key.target, stops=key.stops)
    return bool(rows[0][0])


def count_success(key: Key) -> None:
    """A success ends the count, and the pause; it costs nothing while there is none."""
    if key not in _known():
        return
    try:
        database.execute(sql("end_pause"), key._asdict())
    except (psycopg.Error, CoreError) as error:
        log.warning("pause not ended", error=type(error).__name__)
        return
    _known.change(lambda known: {other: stops for other, stops in known.items() if other != key})
