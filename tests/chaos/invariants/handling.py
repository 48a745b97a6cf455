"""I7 to I10: every message is handled once, in order, with its replies."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from tests.chaos.bots import UNHANDLED, chained, class_of, replies_to
from tests.chaos.evidence import Evidence, Row
from tests.chaos.invariants.base import Found, allowed, committed, holds


@holds("I7", "every message is handled exactly once")
def handled_once(seen: Evidence) -> Found:
    for key, rows in seen.stored.items():
        for row in rows:
            turns = [turn for turn in seen.turns_of.get(row["id"], []) if turn["outcome"] == "committed"]
            if len(turns) != (row["status"] == "handled"):
                yield key, f"is {row['status']}, with {len(turns)} committed turns"
            if row["status"] == "handled" and class_of(row["text"]) in UNHANDLED:
                yield key, "is marked handled, but its turn can only fail"
            if row["status"] == "parked" and class_of(row["text"]) not in UNHANDLED and not allowed(seen, "parks"):
                yield key, f"is parked without need: {row['note']}"
            if row["status"] == "skipped" and not seen.lanes[row["lane"]]["epoch"]:
                yield key, "is skipped, and nobody acted on its lane"
    known = {row["id"] for row in seen.rows["messages"]}
    for turn in seen.rows["turns"]:
        if turn["message_id"] not in known:
            yield None, f"turn {turn['id']} is of a message that is not there"


@holds("I8", "messages are handled in the order of their numbers, and none is left out: the chain fits")
def handled_in_order(seen: Evidence) -> Found:
    for lane in seen.rows["lanes"]:
        handled = [row for row in seen.messages_of[lane["id"]] if row["status"] == "handled"]
        state = lane["state"] or {}
        if state.get("hash", "") != _fold(handled) or state.get("turns", 0) != len(handled):
            key = (lane["ch"], lane["u"], _first_broken_link(seen, handled))
            yield key, f"the chain is broken: {state.get('turns', 0)} turns, {len(handled)} handled"
        first = {turn["message_id"]: turn["id"] for turn in reversed(committed(seen, handled))}
        order = sorted(first, key=lambda message: first[message])
        if order != [row["id"] for row in handled if row["id"] in first]:
            wrong = next((a for a, b in zip(order, handled, strict=False) if a != b["id"]), 0)
            yield seen.key_by_id.get(wrong, (lane["ch"], lane["u"], 0)), "its turn was committed out of order"


def _fold(handled: Iterable[Row], until: int = 0) -> str:
    digest = ""
    for row in handled:
        digest = chained(digest, row["sequence"], row["text"])
        if row["sequence"] == until:
            break
    return digest


def _first_broken_link(seen: Evidence, handled: list[Row]) -> int:
    """The number of the first message whose turn did not begin where the one before it ended."""
    digest = ""
    for row in handled:
        for turn in committed(seen, [row])[:1]:
            if (turn["hash_before"] or "") != digest:
                return seen.key_by_id[row["id"]][2]
        digest = chained(digest, row["sequence"], row["text"])
    return 0


@holds("I9", "no two turns were committed on the same state")
def no_overlap(seen: Evidence) -> Found:
    begun_on: dict[tuple[int, str], Row] = {}
    for turn in seen.rows["turns"]:
        if turn["outcome"] != "committed":
            continue
        other = begun_on.setdefault((turn["lane"], turn["hash_before"] or ""), turn)
        if other is not turn:
            words = f"its turn began on the same state as that of message {other['message_id']}"
            yield seen.key_by_id.get(turn["message_id"]), words


@holds("I10", "a handled message has exactly the replies that its turn said")
def replies_are_complete(seen: Evidence) -> Found:
    for lane, messages in seen.messages_of.items():
        said: dict[int, list[str]] = collections.defaultdict(list)
        for reply in seen.replies_of[lane]:
            if reply["author"] == "bot":
                said[reply["message_id"]].append(reply["text"])
        digest = ""
        for row in messages:
            expected: list[str] = []
            if row["status"] == "handled":
                digest = chained(digest, row["sequence"], row["text"])
                expected = replies_to(row["sequence"], row["text"], digest)
            if said[row["id"]] != expected:
                yield seen.key_by_id.get(row["id"]), f"has the replies {said[row['id']]}, not {expected}"
