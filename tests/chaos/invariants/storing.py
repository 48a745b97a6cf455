"""I1 to I6: what was taken is there, once, unchanged, numbered in order, and was there before the answer."""

from __future__ import annotations

import collections
import itertools

from tests.chaos.evidence import Evidence, Key, Row, number_of
from tests.chaos.invariants.base import Found, holds, place_of

BEGINNING_SECONDS = 0.3  # a message's time is the beginning of its transaction


@holds("I1", "no message that was answered 2xx is lost or changed")
def nothing_is_lost(seen: Evidence) -> Found:
    bodies = {row["receipt_id"]: row["hash"] for row in seen.rows["bodies"]}
    for key in seen.acked:
        if key not in seen.sent:
            continue
        rows = seen.stored.get(key, [])
        if not rows:
            yield key, "was answered 2xx and is not there"
        elif rows[0]["text"] != as_stored(seen.sent[key]["text"]):
            yield key, "is stored with another text"
        elif seen.sent[key]["h"] not in ("", bodies.get(rows[0]["receipt_id"])):
            yield key, "its raw body is not kept as it came"


def as_stored(text: str) -> str:
    return text.replace("\0", "\ufffd")


@holds("I2", "nothing is stored that nobody said")
def nothing_is_invented(seen: Evidence) -> Found:
    for key, rows in seen.stored.items():
        if key not in seen.sent:
            yield key, f"nobody said it: {rows[0]['text'][:60]!r}"


@holds("I3", "the same message is stored once")
def stored_once(seen: Evidence) -> Found:
    for key, rows in seen.stored.items():
        if len(rows) > 1:
            yield key, f"is stored {len(rows)} times"


@holds("I4", "numbers of a lane are 1, 2, 3, ..., of messages and of replies")
def numbers_are_dense(seen: Evidence) -> Found:
    for of_lane, what in ((seen.messages_of, "message"), (seen.replies_of, "reply")):
        for rows in of_lane.values():
            numbers = sorted(row["sequence"] for row in rows if row["sequence"] is not None)
            if numbers != list(range(1, len(numbers) + 1)):
                hole = next(n for n, number in enumerate(numbers, 1) if n != number)
                yield (rows[0]["ch"], rows[0]["u"], hole), f"the {what} numbers of the lane are not dense at {hole}"
    for lane in seen.rows["lanes"]:
        given = max([row["sequence"] or 0 for row in seen.messages_of[lane["id"]]], default=0)
        if given != lane["last_sequence"]:
            words = f"the lane counts {lane['last_sequence']} messages, its last number is {given}"
            yield (lane["ch"], lane["u"], given), words


@holds("I5", "numbers follow the real order, or the platform's where it gives one")
def order_is_kept(seen: Evidence) -> Found:
    for rows in seen.messages_of.values():
        match place_of(rows[0]).order:
            case "arrival":
                yield from _real_order(seen, rows)
            case "window":
                yield from _platforms_order(rows, "order_key")
                if not seen.lanes[rows[0]["lane"]]["epoch"]:  # who takes over sees all that waits
                    yield from _late_after_a_window(rows)
            case "external":
                yield from _platforms_order(rows, "external_sequence")
                yield from _late_for_a_reason(rows)


def _real_order(seen: Evidence, rows: list[Row]) -> Found:
    """A message that was sent first after another had been answered has the greater number."""
    numbered = [(seen.key_by_id[row["id"]], row["sequence"]) for row in rows if row["id"] in seen.key_by_id]
    known = [(key, number) for key, number in numbered if key in seen.acked and number]
    by_answer = sorted(known, key=lambda each: seen.acked[each[0]]["t"])
    greatest, place = 0, 0
    for key, number in sorted(known, key=lambda each: seen.attempts[each[0]][0][0]["t"]):
        begun = seen.attempts[key][0][0]["t"]
        while place < len(by_answer) and seen.acked[by_answer[place][0]]["t"] < begun:
            greatest = max(greatest, by_answer[place][1])
            place += 1
        if number < greatest:
            yield key, f"has number {number}, but {greatest} was answered before it"
    for before, row in itertools.pairwise(rows):
        first, then = (number_of(each["platform_id"]) for each in (before, row))
        if before["receipt_id"] == row["receipt_id"] and first > then:
            yield seen.key_by_id.get(row["id"]), "stands after one that came behind it in the same request"


def _platforms_order(rows: list[Row], column: str) -> Found:
    last = 0
    for row in rows:
        if row["sequence"] is None or row["late"] or row["status"] == "missing" or row[column] is None:
            continue
        if row[column] <= last:
            yield _key(row), f"number {row['sequence']} is the platform's {row[column]}, after its {last}"
        last = max(last, row[column])


def _late_for_a_reason(rows: list[Row]) -> Found:
    holes = [row for row in rows if row["status"] == "missing"]
    for row in filter(lambda row: row["late"], rows):
        closed = [hole for hole in holes if hole["sequence"] < row["sequence"]]
        if not any(hole["external_sequence"] <= row["external_sequence"] <= hole["order_key"] for hole in closed):
            yield _key(row), "is marked late, and no hole was closed before it"


def _late_after_a_window(rows: list[Row]) -> Found:
    """When a late one came, the window of a message that the platform puts after it was over."""
    settle = int(place_of(rows[0]).options["settle_ms"]) / 1000 - BEGINNING_SECONDS
    for row in rows:
        later = [other["received"] for other in rows if (other["order_key"] or 0) > (row["order_key"] or 0)]
        if row["late"] and not any(received + settle <= row["received"] for received in later):
            yield _key(row), "is marked late, and no window was over when it came"


def _key(row: Row) -> Key:
    return row["ch"], row["u"], number_of(row["platform_id"])


@holds("I6", "the answer comes after the commit")
def answered_after_commit(seen: Evidence) -> Found:
    committed = {row["id"]: row["committed"] for row in seen.rows["receipts"]}
    held = collections.Counter(row["receipt_id"] for row in seen.rows["messages"])
    for key, answer in seen.acked.items():
        for row in seen.stored.get(key, [])[:1]:
            at = committed.get(row["receipt_id"])
            if at is None:
                yield key, "its receipt is not there"
            elif held[row["receipt_id"]] > 1:
                continue  # a batch may take several transactions, and a receipt's time is that of the last
            elif at > answer["w"] / 1e9:
                late = (at - answer["w"] / 1e9) * 1000
                yield key, f"was answered {late:.1f} ms before its commit"
