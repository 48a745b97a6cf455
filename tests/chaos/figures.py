"""Figures of a run: how long things took, and from when on they took no longer than usual."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence

from tests.chaos.evidence import Evidence, Row

USUAL = 1.5  # times what it took before the first fault
SHARE = 0.01  # so many may take longer

Wait = tuple[float, float]  # seconds since the epoch at which a message was taken, seconds until all was done


def handled(seen: Evidence, places: Collection[str], but: str) -> list[float]:
    """Seconds from stored to handled."""
    return [row["settled"] - row["received"] for row in _messages(seen, places, but)]


def answered(seen: Evidence, places: Collection[str], but: str) -> list[Wait]:
    """Per message, by when it was taken: until its last reply was delivered; one without replies: until handled."""
    ends: dict[int, float] = {}
    for row in seen.rows["replies"]:
        if row["message_id"] is not None and row["settled"]:
            ends[row["message_id"]] = max(row["settled"], ends.get(row["message_id"], 0.0))
    rows = _messages(seen, places, but)
    return sorted((row["received"], ends.get(row["id"], row["settled"]) - row["received"]) for row in rows)


def _messages(seen: Evidence, places: Collection[str], but: str) -> Iterator[Row]:
    for row in seen.rows["messages"]:
        if row["ch"] in places and row["u"] != but and row["status"] == "handled":
            yield row


def usual(waits: Sequence[Wait], until: float) -> float | None:
    """The p99 of what was done before ``until``; None: nothing was."""
    calm = sorted(wait for at, wait in waits if at + wait < until)
    return calm[min(len(calm) - 1, int(len(calm) * (1 - SHARE)))] if calm else None


def as_usual_again(waits: Sequence[Wait], healed: float, until: float, p99: float) -> float | None:
    """T4: seconds after ``healed`` from which on, until ``until``, all but 1 % took at most 1.5 times ``p99``.

    What was taken so late that it may have met what happens at ``until`` does not count. None: it did not come to
    that, or nothing was taken.
    """
    after = [(at - healed, wait > USUAL * p99) for at, wait in waits if healed <= at < until - USUAL * p99]
    slow, since = 0, None
    for count, (at, is_slow) in enumerate(reversed(after), 1):
        slow += is_slow
        if slow > SHARE * count:
            return since
        since = at
    return 0.0 if after else None


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    found = {"median": statistics.median(ordered), "p95": p95, "max": ordered[-1]}
    return {name: round(value, 2) for name, value in found.items()}
