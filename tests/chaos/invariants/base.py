"""How an invariant is entered and judged: a function from the evidence to (whose message, words) for each violation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.evidence import Evidence, Key, Row
from tests.chaos.generator import BY_NAME, Place


@dataclass(frozen=True, kw_only=True)
class Violation:
    """``key``: whose message it is about, where it is about one."""

    invariant: str
    words: str
    key: Key | None = None


Found = Iterator[tuple[Key | None, str]]
Invariant = Callable[[Evidence], Found]
INVARIANTS: dict[str, tuple[str, Invariant]] = {}


def holds(name: str, words: str) -> Callable[[Invariant], Invariant]:
    """Enter an invariant, with its sentence."""

    def enter(function: Invariant) -> Invariant:
        INVARIANTS[name] = (words, function)
        return function

    return enter


def judge(evidence: Evidence) -> list[Violation]:
    return [
        Violation(invariant=name, key=key, words=words)
        for name, (_, function) in INVARIANTS.items()
        for key, words in function(evidence)
    ]


# ---------------------------------------------------------------- what several of them ask


def place_of(row: Row) -> Place:
    return BY_NAME[row["ch"]]


def key_of_reply(seen: Evidence, reply: Row) -> Key | None:
    return seen.key_by_id.get(reply["message_id"])


def committed(seen: Evidence, rows: Iterable[Row]) -> list[Row]:
    """The turns of these messages that counted."""
    return [turn for row in rows for turn in seen.turns_of.get(row["id"], []) if turn["outcome"] == "committed"]


def allowed(seen: Evidence, what: str) -> bool:
    """Whether a fault of this run says that this may happen."""
    return any(what in fault.get("allows", ()) for fault in seen.faults)
