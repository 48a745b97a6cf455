"""The smallest story that shows what went wrong: one person, one number, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Evidence, Key, Row, key_of
from tests.chaos.invariants import Violation

LONGEST = 80


def tell(seen: Evidence, violations: Sequence[Violation]) -> str:
    """About the violation with the smallest number of a message; where none is about a message, only the words."""
    about = [violation for violation in violations if violation.key is not None]
    if not about:
        return "\n".join(f"  {violation.invariant}: {violation.words}" for violation in violations[:10])
    first = min(about, key=lambda violation: (violation.key[2], violation.invariant))  # type: ignore[index]
    assert first.key is not None
    title = f"Counterexample, {first.invariant}: {'/'.join(map(str, first.key))} {first.words}"
    return "\n".join([title, *timeline(seen, first.key)])


def timeline(seen: Evidence, key: Key) -> list[str]:
    """All that is known of one message, and the faults around it."""
    return [f"  {seconds:9.3f} s  {words}" for seconds, words in sorted(_lines(seen, key))[:LONGEST]]


def _lines(seen: Evidence, key: Key) -> Iterator[tuple[float, str]]:
    yield from _people(seen, key)
    for row in seen.stored.get(key, []):
        yield from _database(seen, row)
    for fault in seen.faults:
        yield seen.began.seconds(fault["begun"]), f"fault {fault['name']}: {fault['title']}"
        yield seen.began.seconds(fault["healed"]), f"fault {fault['name']} ends"


def _people(seen: Evidence, key: Key) -> Iterator[tuple[float, str]]:
    for event in seen.events:
        if event["f"] in ("webhook", "message", "never") and key_of(event) == key:
            named = ("a", "web", "status", "error", "kind")
            words = {name: event[name] for name in named if event.get(name) not in (None, "")}
            yield seen.began.seconds(event["t"]), f"person   {event['f']} {event['k']} {_said(words)}"


def _database(seen: Evidence, row: Row) -> Iterator[tuple[float, str]]:
    at = seen.began.wall_seconds
    yield at(row["received"]), f"database stored as {row['id']}, number {row['sequence']} of lane {row['lane']}"
    for line in seen.begun:
        if (line["lane"], line["sequence"]) == (row["lane"], row["sequence"]):
            yield seen.began.seconds(line["t"]), f"bot      begins it in process {line['pid']}"
    for turn in seen.turns_of.get(row["id"], []):
        words = {name: turn[name] for name in ("attempt", "outcome", "error_type") if turn[name]}
        yield at(turn["ended"]), f"database turn {turn['id']} of {turn['worker'][:8]}: {_said(words)}"
    if row["settled"]:
        yield at(row["settled"]), f"database message {row['status']} {row['note']}"
    for reply in seen.replies_of[row["lane"]]:
        if reply["message_id"] == row["id"]:
            yield from _reply(seen, row, reply)


def _reply(seen: Evidence, row: Row, reply: Row) -> Iterator[tuple[float, str]]:
    at = seen.began.wall_seconds
    words = f"reply {reply['sequence']} ({reply['author']})"
    yield at(reply["created"]), f"database {words}: {reply['text']}"
    if reply["settled"]:
        became = f"{reply['status']} after {reply['attempts']} attempts {reply['error']}"
        yield at(reply["settled"]), f"database {words}: {became}"
    for call in seen.calls:
        if call["text"] == reply["text"] and call["chat"] == row["u"]:
            shown = "shown" if call["accepted"] else "not shown"
            said = f"{call['decision']}, {shown}, key {call['key'][:8]}"
            yield seen.began.seconds(call["done_ns"]), f"platform {words}: {said}"


def _said(words: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in words.items())
