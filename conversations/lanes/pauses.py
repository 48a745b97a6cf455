"""Pauses a channel or a bot that fails for everybody, in one row that says why.

A row counts the failures in a row of a channel; a success deletes it. ``FAILURES`` in a row, in two
conversations or more, stop the channel. Another row counts those of a bot in all its channels: as
many, in two channels or more and without a success in any, stop the bot by its name. A bot whose
channels have nothing in common (``registry.bot``, ``by_channel``) is stopped channel by channel only.

While something is stopped, failures spend no attempts, and the sweeper tries conversations now and
then (``probe_at``), beginning with those that have not failed yet. The first success ends the
pause, and all lanes are due. Where only one or two conversations had failed and another one
succeeds, the fault is theirs: for an hour, or until one of them succeeds, the row remembers them, and their
failures stop nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
import structlog

from conversations import registry, runtime
from conversations.concurrency import Fresh
from conversations.contracts import ChannelConfig, Work
from conversations.errors import CoreError
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text

log = structlog.get_logger(__name__)

# Failures in a row that pause a channel or a bot. Larger: more messages spend an attempt before the
# pause; smaller: a few bad messages pause it for everybody.
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


class State(NamedTuple):
    """What a row says of its key. Neither stopped nor counting: it remembers whose fault it was."""

    stopped: bool
    by_staff: bool
    failures: int
    theirs: Sequence[int]


def _read(last: dict[Key, State]) -> dict[Key, State]:
    """Read all rows; ``last`` while the database is away."""
    try:
        rows = runtime.execute("SELECT scope, target, stops, since IS NOT NULL, by_staff, failures, theirs FROM pause")
    except (psycopg.Error, CoreError) as error:
        log.warning("pauses not read", error=type(error).__name__)
        return last
    return {Key(*row[:3]): State(*row[3:]) for row in rows}


@runtime.kept
def _cache() -> Fresh[dict[Key, State]]:
    return Fresh(_read, KNOWN_SECONDS, first={})


def is_stopped(*keys: Key, by_staff: bool = False) -> bool:
    """Return True if one of ``keys`` is paused; the answer is at most ``KNOWN_SECONDS`` old.

    ``by_staff``: count only what staff stopped.
    """
    known = _cache()()
    found = (known[key] for key in keys if key in known)
    return any(state.stopped and (state.by_staff or not by_staff) for state in found)


def keys_of(activity: str, bot: str, channel_id: int, tenant_id: int) -> tuple[Key, ...]:
    """Return the pauses that concern a channel's ``activity`` (see ``contracts.Work``).

    The pause of a bot does not concern sending: its replies are written already.
    """
    keys = Key(CHANNEL, str(channel_id), activity), Key(TENANT, str(tenant_id), activity)
    return keys if activity == Work.SEND.activity else (Key(BOT, bot, activity), *keys)


def count_turn(channel: ChannelConfig, conversation_id: int, failure: str) -> bool:
    """Count how a turn ended: ``failure`` says why it failed, '' that it did not.

    Return True if its channel or its bot is paused now.
    """
    of_channel = Key(CHANNEL, str(channel.id), Work.HANDLE.activity)
    of_bot = Key(BOT, channel.bot, Work.HANDLE.activity)
    if not failure:
        count_success(of_channel, conversation_id)
        count_success(of_bot, channel.id)
        return False
    stopped = count_failure(of_channel, conversation_id, failure)
    if registry.fails_by_channel(channel.bot):
        return stopped or is_stopped(of_bot)
    return count_failure(of_bot, channel.id, failure) or stopped


def count_failure(key: Key, member: int, reason: str, *, at_once: bool = False) -> bool:
    """Count a failure. Return True if ``key`` is paused now.

    ``member`` is what failed: a conversation of a channel, or a channel of a bot. ``at_once``: this
    failure is enough.
    """
    values = {**key._asdict(), "reason": clean_text(reason, 300), "member": member, "limit": FAILURES,
              "at_once": at_once}  # fmt: skip
    try:
        rows = runtime.execute(sql("count_failure"), values)
    except (psycopg.Error, CoreError):
        rows = []
    if not rows:
        return is_stopped(key)
    stopped, just_now, *state = rows[0]
    _cache().change(lambda known: {**known, key: State(stopped, *state)})
    if just_now:
        log.error("paused", **{key.scope: key.target}, stops=key.stops)
    return bool(stopped)


def count_success(key: Key, member: int | None = None) -> None:
    """End the count and the pause of ``key``. Without either, nothing is written.

    ``member`` is what succeeded; None: nothing did, but the settings have changed.
    """
    state = _cache()().get(key)
    if state is None or state.by_staff:
        return
    if not (state.stopped or state.failures or member is None or member in state.theirs):
        return
    try:
        runtime.execute(sql("end_pause"), {**key._asdict(), "member": member})
    except (psycopg.Error, CoreError) as error:
        log.warning("pause not ended", error=type(error).__name__)
        return
    _cache().change(lambda known: {other: state for other, state in known.items() if other != key})
