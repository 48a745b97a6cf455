"""The facts about conversations that do not move, from rows alone.

``read`` fetches the facts of many lanes in one query, ``look_around`` what stops many lanes at
once, ``find_stuck`` the lanes that need a person.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection

from conversations import installation
from conversations.postgres.sql_files import sql

# Seconds for which work may be due before the lane is late. Larger: fewer false alarms, later true
# ones.
LATE_SECONDS = 30
# Conversations that wait for one cause are counted up to this number, the limit in find_causes.sql.
# Larger: exact for larger backlogs, slower.
COUNTED = 1000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that decides whether one lane (one conversation) moves: a row of ``read_facts.sql``.

    ``head_*`` is its next message, ``reply_*`` its first unsettled reply; ``parked_*`` and
    ``refused_*`` are one message and one reply that staff must look at.
    """

    id: int
    channel_id: int
    channel_name: str
    bot: str
    tenant_id: int
    active: bool
    mode: str
    paused_at: dt.datetime | None
    blocked: bool
    suspect: bool
    attempts: int
    not_before: dt.datetime | None
    next_sequence: int
    last_sequence: int
    last_key: int | None
    gap_since: dt.datetime | None
    wait_until: dt.datetime | None
    due_at: dt.datetime | None
    send_due_at: dt.datetime | None
    unreachable_since: dt.datetime | None
    opted_out_at: dt.datetime | None
    phone_until: dt.datetime | None
    head_status: str | None
    head_received_at: dt.datetime | None
    head_note: str | None
    error_type: str | None
    error_place: str | None
    reply_sequence: int | None
    reply_status: str | None
    reply_attempts: int | None
    reply_not_before: dt.datetime | None
    reply_error: str | None
    reply_created_at: dt.datetime | None
    awaited_kind: str | None
    bucket_until: dt.datetime | None
    bucket_words: str | None
    assignee: str | None
    newest_at: dt.datetime | None
    passed_note: str | None
    answered_at: dt.datetime | None
    waiting: int
    parked_sequence: int | None
    parked_note: str | None
    refused_sequence: int | None
    refused_status: str | None
    refused_error: str | None
    paused_by: str | None
    pause_reason: str | None
    opted_out_by: str | None
    in_hand: bool

    @property
    def pending(self) -> int:
        """Return how many numbered messages the lane has not passed."""
        return self.last_sequence - self.next_sequence + 1

    @property
    def oldest_pending_at(self) -> dt.datetime | None:
        """Return when the next message came, None where none is pending."""
        return self.head_received_at if self.pending and self.head_status == "pending" else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One thing that stops many conversations: a row of ``find_causes.sql``."""

    pause_id: int | None
    scope: str
    target: str
    stops: str
    reason: str
    failures: int
    by_staff: bool
    since: dt.datetime | None
    probe_at: dt.datetime | None
    channels: list[int]
    names: list[str]
    waiting: int

    @property
    def text(self) -> str:
        """Say what is stopped and why, in one sentence."""
        return f"{self._subject()}{f': {self.reason}' if self.reason else ''}"

    @property
    def waiting_words(self) -> str:
        """Say how many conversations wait; counting ends at ``COUNTED``."""
        number = f"{COUNTED:,} or more" if self.waiting >= COUNTED else f"{self.waiting:,}"
        return f"{number} conversation{'' if self.waiting == 1 else 's'} wait{'s' if self.waiting == 1 else ''}"

    def _subject(self) -> str:
        what = {"bot": f"Bot '{self.target}'", "tenant": f"Tenant {self.target}"}.get(self.scope)
        name = what or f"Channel '{self.names[0] if self.names else self.target}'"
        if self.scope == "off":
            return f"{name} is switched off; what comes is stored and waits"
        if self.scope == "unknown":
            return f"No running worker knows the bot '{self.target}'; what comes is stored and waits"
        if self.by_staff:
            return f"{name} was stopped by staff ({self.stops})"
        if self.stops == "sending":
            return f"{name} cannot send"
        return f"{name} is paused after {self.failures} failure{'' if self.failures == 1 else 's'} in a row"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What concerns many conversations at once.

    ``causes`` stop channels, ``kinds`` are the kinds of process that are alive, and ``held``
    says why this installation sends nothing ('' where it sends).
    """

    causes: Sequence[Cause] = ()
    kinds: frozenset[str] = frozenset()
    held: str = ""

    def stopping(self, channel_id: int, stops: str) -> Cause | None:
        """Return the cause that stops handling or sending (``stops``) in this channel, or None."""
        return next((cause for cause in self.causes if cause.stops == stops and channel_id in cause.channels), None)


def read(ids: Sequence[int]) -> dict[int, Facts]:
    """Return the facts of these lanes, by id."""
    return {row["id"]: Facts(**row) for row in _rows("read_facts", ids=list(ids))}


def look_around(channels: Sequence[int]) -> Around:
    """Return what stops these channels, which kinds of process live, and why sending is held."""
    causes = [Cause(**row) for row in _rows("find_causes", channels=list(channels))]
    kinds = frozenset(row["kind"] for row in _rows("living_kinds"))
    return Around(causes=causes, kinds=kinds, held=installation.held())


def find_stuck(channels: Sequence[int], around: Around, limit: int) -> list[int]:
    """Return ids of conversations that need a person or are late, those first that wait longest.

    In a channel that is stopped, late conversations are left out: their cause is shown once,
    for all.
    """
    values = {
        "channels": list(channels),
        "stopped": _stopped_channels(around, "handling"),
        "unsendable": _stopped_channels(around, "sending"),
        "late": LATE_SECONDS,
        "limit": limit,
    }
    return [row["id"] for row in _rows("find_stuck", **values)]


def _stopped_channels(around: Around, stops: str) -> list[int]:
    """Return the ids of channels in which a cause stops handling or sending (``stops``)."""
    return [channel for cause in around.causes if cause.stops == stops for channel in cause.channels]


def _rows(name: str, **values: Any) -> Iterator[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql(name), values)
        columns = [column.name for column in cursor.description]
        yield from (dict(zip(columns, row, strict=True)) for row in cursor.fetchall())
