"""Pauses a bot or a channel that fails for everybody, in one row that says why.

A row counts the failures in a row; a success deletes it. ``FAILURES`` in a row, in two
conversations or more, stop the bot or the channel. While it is stopped, failures spend no attempts,
and the sweeper tries one conversation now and then (``probe_at``). The first success ends the
pause, and all lanes are due.
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

# Failures in a row that pause a bot or a channel. Larger: more messages spend an attempt before the
# pause; smaller: a few bad messages pause the bot or channel for everybody.
FAILURES = 8
# Seconds for which this process reuses the rows that it read. Longer: a pause that another process
# made is noticed later; shorter: more reads.
KNOWN_SECONDS = 0.5

BOT, CHANNEL, TENANT = "bot", "channel", "tenant"


class Key(NamedTuple):
    """Names a pause: which bot, channel or tenant, and which work it stops.

    ``scope`` is one of ``BOT``, ``CHANNEL``, ``TENANT``; ``target`` is a bot's name or an id;
    ``stops`` is a ``Work.activity``.
    """

    scope: str
    target: str
    stops: str


def _read(last: dict[Key, bool]) -> dict[Key, bool]:
    """Read all rows: True for a pause, False for a count. ``last`` while the database is away."""
    try:
        rows = database.execute("SELECT scope, target, stops, since IS NOT NULL FROM pause")
    except (psycopg.Error, CoreError) as error:
        log.warning("pauses not read", error=type(error).__name__)
        return last
    return {Key(*row[:3]): row[3] for row in rows}


_known: Fresh[dict[Key, bool]] = Fresh(_read, KNOWN_SECONDS, first={})
forget = _known.forget


def is_stopped(*keys: Key) -> bool:
    """Return True if one of ``keys`` is paused; the answer is at most ``KNOWN_SECONDS`` old."""
    known = _known()
    return bool(known) and any(known.get(key, False) for key in keys)


def keys_of(activity: str, bot: str, channel_id: int, tenant_id: int) -> tuple[Key, ...]:
    """Return the pauses that concern a channel's ``activity`` (see ``contracts.Work``).

    The pause of a bot does not concern sending: its replies are written already.
    """
    keys = Key(CHANNEL, str(channel_id), activity), Key(TENANT, str(tenant_id), activity)
    return keys if activity == Work.SEND.activity else (Key(BOT, bot, activity), *keys)


def count_failure(key: Key, conversation_id: int, reason: str, *, at_once: bool = False) -> bool:
    """Count a failure. Return True if ``key`` is paused now. ``at_once``: this one is enough."""
    values = {**key._asdict(), "reason": clean_text(reason, 300), "conversation_id": conversation_id,
              "limit": 1 if at_once else FAILURES, "at_once": at_once}  # fmt: skip
    try:
        rows = database.execute(sql("count_failure"), values)
    except (psycopg.Error, CoreError):
        return is_stopped(key)
    _known.change(lambda known: {**known, key: rows[0][0]})
    if rows[0][1]:
        log.error("paused", **{key.scope: key.target}, stops=key.stops)
    return bool(rows[0][0])


def count_success(key: Key) -> None:
    """End the count and the pause of ``key``. Without either, nothing is written."""
    if key not in _known():
        return
    try:
        database.execute(sql("end_pause"), key._asdict())
    except (psycopg.Error, CoreError) as error:
        log.warning("pause not ended", error=type(error).__name__)
        return
    _known.change(lambda known: {other: stops for other, stops in known.items() if other != key})
