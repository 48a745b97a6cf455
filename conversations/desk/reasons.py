"""Why is this conversation not moving? The answer in plain words, from rows alone.

``read`` fetches the facts of many lanes in one query, ``look_around`` what stops many at once;
``reasons`` turns them into sentences, the most important first. It decides nothing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection

from conversations import installation
from conversations.delivering import results
from conversations.handling import verdicts
from conversations.postgres.sql_files import sql

LATE_SECONDS = 30  # due for longer than this is older than expected
COUNTED = 1000  # conversations that wait for one cause are counted so far
NOBODY = "nobody has taken it yet"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One sentence. ``weight``: stuck (a person is needed), waits, person (a person answers), flows, idle."""

    text: str
    weight: str
    until: dt.datetime | None = None
    since: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A row of ``read_facts.sql``: one lane with its head, its first unsettled reply, its people."""

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
    in_hand: bool

    @property
    def pending(self) -> int:
        """Numbered messages that are not passed."""
        return self.last_sequence - self.next_sequence + 1

    @property
    def oldest_pending_at(self) -> dt.datetime | None:
        return self.head_received_at if self.pending and self.head_status == "pending" else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """A row of ``find_causes.sql``: one thing that stops many conversations."""

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
        """What stands still and why, in one sentence."""
        return f"{self._subject()}{f': {self.reason}' if self.reason else ''}"

    @property
    def waiting_words(self) -> str:
        number = f"{COUNTED:,} or more" if self.waiting >= COUNTED else f"{self.waiting:,}"
        return f"{number} conversation{'' if self.waiting == 1 else 's'} wait{'s' if self.waiting == 1 else ''}"

    def _subject(self) -> str:
        what = {"bot": f"Bot '{self.target}'", "tenant": f"Tenant {self.target}"}.get(self.scope)
        name = what or f"Channel '{self.names[0] if self.names else self.target}'"
        if self.scope == "off":
            return f"{name} is switched off; what comes is stored and waits"
        if self.by_staff:
            return f"{name} was stopped by staff ({self.stops})"
        if self.stops == "sending":
            return f"{name} cannot send"
        return f"{name} is paused after {self.failures} failure{'' if self.failures == 1 else 's'} in a row"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What stops many conversations, which kinds of process live, and why nothing is sent from here ('' when it is)."""

    causes: Sequence[Cause] = ()
    kinds: frozenset[str] = frozenset()
    held: str = ""

    def stopping(self, channel_id: int, stops: str) -> Cause | None:
        return next((cause for cause in self.causes if cause.stops == stops and channel_id in cause.channels), None)


# ---------------------------------------------------------------- reading


def read(ids: Sequence[int]) -> dict[int, Facts]:
    """The facts of these lanes, by id."""
    return {row["id"]: Facts(**row) for row in _rows("read_facts", ids=list(ids))}


def look_around(channels: Sequence[int]) -> Around:
    """What stands still in these channels."""
    causes = [Cause(**row) for row in _rows("find_causes", channels=list(channels))]
    kinds = frozenset(row["kind"] for row in _rows("living_kinds"))
    return Around(causes=causes, kinds=kinds, held=installation.held())


def find_stuck(channels: Sequence[int], around: Around, limit: int) -> list[int]:
    """Ids of the conversations that need a person, or are older than expected; those longest so first."""
    values = {
        "channels": list(channels),
        "stopped": _channels_of(around, "handling"),
        "unsendable": _channels_of(around, "sending"),
        "late": LATE_SECONDS,
        "limit": limit,
    }
    return [row["id"] for row in _rows("find_stuck", **values)]


def _channels_of(around: Around, stops: str) -> list[int]:
    return [channel for cause in around.causes if cause.stops == stops for channel in cause.channels]


def _rows(name: str, **values: Any) -> Iterator[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql(name), values)
        columns = [column.name for column in cursor.description]
        yield from (dict(zip(columns, row, strict=True)) for row in cursor.fetchall())


# ---------------------------------------------------------------- in words


def reasons(facts: Facts, around: Around, now: dt.datetime) -> list[Reason]:
    """Why this lane stands as it stands: handling first, then delivering, then what was set aside."""
    found = [_handling(facts, around, now), _delivering(facts, around, now), _parked(facts), _refused(facts)]
    return [reason for reason in found if reason] or [Reason(text="Nothing is waiting here.", weight="idle")]


def _handling(facts: Facts, around: Around, now: dt.datetime) -> Reason | None:
    if facts.paused_at:
        return _paused(facts)
    if facts.mode == "human":
        return _human(facts)
    if facts.blocked:
        return _blocked(facts)
    if not facts.pending:
        return _ordering(facts)
    cause = around.stopping(facts.channel_id, "handling")
    if cause:
        return _stuck(f"{cause.text}.", since=cause.since, until=cause.probe_at)
    return _next(facts, around, now)


def _paused(facts: Facts) -> Reason:
    who = f" by {facts.paused_by}" if facts.paused_by else ""
    return _stuck(f"The bot is paused here{who}{_because(facts.pause_reason)}.", since=facts.paused_at)


def _human(facts: Facts) -> Reason:
    answered = facts.newest_at is None or (facts.answered_at is not None and facts.answered_at >= facts.newest_at)
    if not facts.assignee and not answered:
        return _stuck(f"A person is needed{_because(facts.passed_note)}; {NOBODY}.", since=facts.newest_at)
    who = f"A person ({facts.assignee}) answers here" if facts.assignee else "A person answers here"
    if answered:
        return Reason(text=f"{who}.", weight="person")
    return _waits(f"{who}; the newest message waits for words.", since=facts.newest_at)


def _blocked(facts: Facts) -> Reason:
    what = "stands for a hole" if facts.head_status == "missing" else "is parked"
    text = f"Message {facts.next_sequence} {what} and holds up what follows{_because(facts.head_note)}."
    return _stuck(text, since=facts.head_received_at)


def _ordering(facts: Facts) -> Reason | None:
    if not facts.waiting:
        return None
    if facts.gap_since and facts.last_key is not None:
        text = f"Waiting for number {facts.last_key + 1} of the platform's order."
        return _waits(text, since=facts.gap_since, until=facts.wait_until)
    return _waits("Waiting for an earlier message that may still come.", until=facts.wait_until)


def _next(facts: Facts, around: Around, now: dt.datetime) -> Reason:
    message, since = f"Message {facts.next_sequence}", facts.head_received_at
    if facts.attempts:
        text = f"The bot failed {facts.attempts} of {verdicts.ATTEMPTS} times{_error(facts)}; it is tried again."
        return _waits(text, since=since, until=facts.not_before)
    if facts.suspect:
        return _waits(f"{message}: its last worker died; the next turn runs in a process of its own.", since=since)
    if facts.in_hand:
        return _flows(f"{message} is with the bot now.", since=since)
    if _overdue(facts.due_at, now):
        busy = "no worker has taken it" if "handle" in around.kinds else "no worker is running"
        return _stuck(f"{message} should have been handled by now; {busy}.", since=since)
    return _flows(f"{message} is next.", since=since)


def _delivering(facts: Facts, around: Around, now: dt.datetime) -> Reason | None:
    reply, since = f"Reply {facts.reply_sequence}", facts.reply_created_at
    match facts.reply_status:
        case "unknown":
            text = f"{reply} may or may not have arrived{_because(facts.reply_error)}; please decide."
            return _stuck(text, since=since)
        case "sending":
            return _flows(f"{reply} is being sent.", since=since)
        case "pending":
            return _unsent(facts, around, now)
    return None


def _unsent(facts: Facts, around: Around, now: dt.datetime) -> Reason:
    cause = around.stopping(facts.channel_id, "sending")
    reply, since = f"Reply {facts.reply_sequence}", facts.reply_created_at
    if around.held:
        return _stuck(f"{reply} is held: {around.held}.", since=since)
    if cause:
        return _stuck(f"{cause.text}; {cause.waiting_words}.", since=cause.since, until=cause.probe_at)
    if facts.bucket_until:
        return _waits(
            f"{reply}: the platform asked for a pause{_because(facts.bucket_words)}.", until=facts.bucket_until
        )
    if facts.reply_attempts:
        text = f"{reply} failed {facts.reply_attempts} of {results.ATTEMPTS} times{_because(facts.reply_error)}"
        return _waits(f"{text}; it is tried again.", until=facts.reply_not_before)
    if _overdue(facts.send_due_at, now):
        busy = "no sender has taken it" if "send" in around.kinds else "no sender is running"
        return _stuck(f"{reply} should have been sent by now; {busy}.", since=since)
    return _flows(f"{reply} is about to be sent.", since=since)


def _parked(facts: Facts) -> Reason | None:
    """What blocks the lane, or made it a person's, was named already."""
    named = facts.next_sequence if facts.blocked else facts.next_sequence - 1 if facts.mode == "human" else None
    if facts.parked_sequence in (None, named):
        return None
    return _stuck(f"Message {facts.parked_sequence} was parked{_because(facts.parked_note)}.")


def _refused(facts: Facts) -> Reason | None:
    if facts.unreachable_since:
        text = "The person has blocked us; replies are parked until they write."
        return _waits(text, since=facts.unreachable_since)
    if facts.refused_sequence is None or facts.refused_sequence == facts.reply_sequence:
        return None
    words = {"parked": "was refused", "failed": "was taken by the platform, which later said that it failed"}
    what = words.get(facts.refused_status or "", "may or may not have arrived")
    return _stuck(f"Reply {facts.refused_sequence} {what}{_because(facts.refused_error)}.")


def _error(facts: Facts) -> str:
    if not facts.error_type:
        return ""
    return f" with {facts.error_type}{f' at {facts.error_place}' if facts.error_place else ''}"


def _because(words: str | None) -> str:
    return f": {words}" if words else ""


def _overdue(moment: dt.datetime | None, now: dt.datetime) -> bool:
    return moment is not None and now - moment > dt.timedelta(seconds=LATE_SECONDS)


def _stuck(text: str, *, since: dt.datetime | None = None, until: dt.datetime | None = None) -> Reason:
    return Reason(text=text, weight="stuck", since=since, until=until)


def _waits(text: str, *, since: dt.datetime | None = None, until: dt.datetime | None = None) -> Reason:
    return Reason(text=text, weight="waits", since=since, until=until)


def _flows(text: str, *, since: dt.datetime | None = None) -> Reason:
    return Reason(text=text, weight="flows", since=since)
