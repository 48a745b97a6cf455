"""I25: a run that found nothing must have met what it is about, or it proves nothing."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from tests.chaos.evidence import Evidence
from tests.chaos.invariants.base import place_of

ACKED_SHARE = 0.95
RESCUED_SECONDS = 2.8  # what was not woken is due after 3 s


def seen_to_happen(seen: Evidence) -> dict[str, int]:
    """How often what a run must meet was met."""
    return {"taken over": taken_over(seen), "duplicates met": sum(row["duplicates"] for row in seen.rows["receipts"]),
            "rescued by the sweeper": rescued(seen), "429 said": sum(call["decision"] == "429" for call in seen.calls),
            "sends in doubt": sum(reply["attempts"] > 1 for reply in seen.rows["replies"]),
            "failed after sent": sum(reply["status"] == "failed" for reply in seen.rows["replies"]),
            "parked": sum(row["status"] == "parked" for row in seen.rows["messages"])}  # fmt: skip


def taken_over(seen: Evidence) -> int:
    """Messages that one process began and left without an end, and another process ended."""
    pids, begun = collections.defaultdict(set), collections.Counter()
    for line in seen.begun:
        pids[(line["lane"], line["sequence"])].add(line["pid"])
        begun[(line["lane"], line["sequence"])] += 1
    ended = {(row["lane"], row["sequence"]): len(seen.turns_of.get(row["id"], [])) for row in seen.rows["messages"]}
    return sum(len(each) > 1 and begun[place] > ended.get(place, 0) for place, each in pids.items())


def rescued(seen: Evidence) -> int:
    """Messages that were begun 3 s after they came, though nothing stood before them: their wake was lost."""
    begun: dict[tuple[int, int], float] = {}
    for line in seen.begun:
        begun.setdefault((line["lane"], line["sequence"]), seen.began.w / 1e9 + seen.began.seconds(line["t"]))
    count = 0
    for lane, rows in seen.messages_of.items():
        free = 0.0
        for row in rows:
            at = begun.get((lane, row["sequence"]))
            count += (
                at is not None
                and at - max(free, row["received"]) > RESCUED_SECONDS
                and place_of(row).order == "arrival"
            )
            free = row["settled"] or free
    return count


def unproven(seen: Evidence, needed: Iterable[str]) -> list[str]:
    """I25: why a run that found nothing proves nothing. ``needed``: what it must have met."""
    reasons = []
    said = [key for key, event in seen.sent.items() if not event.get("giveup") and seen.attempts.get(key)]
    acked = sum(key in seen.acked for key in said)
    if not said or acked < ACKED_SHARE * len(said):
        reasons.append(f"only {acked} of {len(said)} messages were taken")
    met = seen_to_happen(seen)
    reasons += [f"nothing was met of: {name}" for name in needed if not met[name]]
    reasons += [f"{fault['name']} did not hit: {words}" for fault in seen.faults for words in fault["missed"]]
    reasons += [f"{fault['name']} has no evidence" for fault in seen.faults if not fault["evidence"]]
    return reasons
