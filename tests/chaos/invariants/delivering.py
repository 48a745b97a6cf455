"""I11 to I14: every reply arrives, once where that is possible, in order, within limits."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.evidence import Evidence, Row
from tests.chaos.generator import BY_NAME, Place
from tests.chaos.invariants.base import Found, allowed, holds, key_of_reply, place_of

IN_FLIGHT_SECONDS = 0.5  # calls that were on their way when a 429 was said
EARLY_SECONDS = 0.1  # two clocks, and a number that is rounded
SQUEEZE_SECONDS = 2.0  # a stall of the machine moves calls into one window
KNOWN_SECONDS = 2.0  # from a status's answer until no call begins any more
JOINED_SECONDS = 4.0  # until a status that came too early is joined to its reply


def _showings(seen: Evidence) -> Iterator[tuple[Row, list[Row]]]:
    """Each reply of the bot with the times that its person saw it."""
    for lane, replies in seen.replies_of.items():
        place, user = place_of(replies[0]), seen.lanes[lane]["u"]
        shown: dict[str, list[Row]] = collections.defaultdict(list)
        for call in seen.shown.get((place.account, user), []):
            shown[call["text"]].append(call)
        for reply in replies:
            if reply["author"] == "bot":
                yield reply, shown[reply["text"]]


@holds("I11", "every reply is delivered at least once")
def delivered(seen: Evidence) -> Found:
    for reply, showings in _showings(seen):
        if reply["status"] == "sent" and not showings:
            yield key_of_reply(seen, reply), "a reply is marked sent, nobody saw it"
        elif reply["status"] not in ("sent", "parked", "cancelled", "failed"):
            yield key_of_reply(seen, reply), f"a reply is still {reply['status']}"
        elif reply["status"] == "parked" and not allowed(seen, "parks replies"):
            yield key_of_reply(seen, reply), f"a reply is parked without need: {reply['error']}"
        elif reply["status"] == "cancelled" and not seen.lanes[reply["lane"]]["epoch"]:
            yield key_of_reply(seen, reply), "a reply is cancelled, nobody took over"


@holds("I12", "a reply is shown once where the platform takes a key, and as often as it was in doubt elsewhere")
def shown_once(seen: Evidence) -> Found:
    for reply, showings in _showings(seen):
        key, life = key_of_reply(seen, reply), place_of(reply).key_life
        again = list(itertools.pairwise(showings))
        if len(showings) > 1 and len({call["key"] for call in showings}) > 1:
            yield key, "a reply went out under two keys"
        elif life and any((b["done_ns"] - a["done_ns"]) / 1e9 < life for a, b in again):
            yield key, f"a reply was shown {len(showings)} times"
        elif not life and len(again) > max(reply["attempts"] - 1, _given_back(reply, showings)):
            yield key, f"a reply was shown {len(showings)} times in {reply['attempts']} attempts"


def _given_back(reply: Row, showings: Sequence[Row]) -> int:
    """Calls whose end nobody knows, which spend no attempt while a channel is paused.

    The platform says which answers it spoiled. Of an answer that got lost on the way only the reply's words tell.
    """
    spoiled = sum(call["decision"].startswith("accept_then_") for call in showings)
    return max(spoiled, int(reply["attempts"] == 1 and bool(reply["error"])))


@holds("I28", "a reply is what its platform said of it, and is not shown again once that was said")
def statuses_are_believed(seen: Evidence) -> Found:
    for reply, showings in _showings(seen):
        key, said = key_of_reply(seen, reply), _said(seen, showings)
        arrived = said & {"delivered", "read"}
        if len(showings) == 1 and arrived and (reply["status"], reply["delivered"] != "none") != ("sent", True):
            found = f"{reply['status']}, delivered: {reply['delivered']}"
            yield key, f"a reply is {found}, and was {', '.join(sorted(said))}"
        elif len(showings) == 1 and "failed" in said and not arrived and reply["status"] != "failed":
            yield key, f"a reply is {reply['status']}, and failed after it was sent"
        elif reply["status"] == "failed" and "failed" not in _said(seen, showings, until=None):
            yield key, f"a reply is failed without need: {reply['error']}"
        for before, again in itertools.pairwise(showings):
            first = min(seen.said_of_replies.get(before.get("name", ""), {}).values(), default=again["t_ns"])
            if first < again["t_ns"] - KNOWN_SECONDS * 1e9:
                late = (again["t_ns"] - first) / 1e9
                yield key, f"a reply was shown again {late:.1f} s after a status said that it was taken"


def _said(seen: Evidence, showings: Sequence[Row], until: float | None = JOINED_SECONDS) -> set[str]:
    """The words about a reply that were taken ``until`` so many seconds before the end; all with None.

    One that comes before its reply is known is joined to it a little later.
    """
    end = seen.events[-1]["t"] - until * 1e9 if until is not None else float("inf")
    told = (seen.said_of_replies.get(call.get("name", ""), {}) for call in showings)
    return {word for words in told for word, at in words.items() if at <= end}


@holds("I13", "a person sees replies in order")
def shown_in_order(seen: Evidence) -> Found:
    for lane, replies in seen.replies_of.items():
        place = place_of(replies[0])
        often = collections.Counter(reply["text"] for reply in replies)  # after many replies, "sorry" is said again
        numbers = {reply["text"]: reply for reply in replies if often[reply["text"]] == 1}
        greatest: Row | None = None
        met: set[str] = set()
        for call in seen.shown.get((place.account, seen.lanes[lane]["u"]), []):
            reply = numbers.get(call["text"])
            if reply is None:
                continue
            behind = greatest is not None and reply["sequence"] < greatest["sequence"]
            again = call["text"] in met
            if behind and not (again and not place.key_life) and not (again and reply["attempts"] > 1):
                yield key_of_reply(seen, reply), f"reply {reply['sequence']} was shown after {greatest['sequence']}"  # type: ignore[index]
            met.add(call["text"])
            if not behind:
                greatest = reply


@holds("I14", "limits hold, and nobody calls before the time that a platform named")
def limits_hold(seen: Evidence) -> Found:
    by_account: dict[str, list[Row]] = collections.defaultdict(list)
    for call in seen.calls:
        by_account[call["account"]].append(call)
    for place in BY_NAME.values():
        calls = sorted(by_account[place.account], key=lambda call: call["t_ns"])
        for bucket, rate in place.limits.items():
            for group in _buckets(calls, bucket):
                yield from _within_rate(place, bucket, rate, group)
        for group in _buckets(calls, "chat" if place.platform == "telegram" else "channel"):
            yield from _time_was_waited(place, group)


def _buckets(calls: list[Row], bucket: str) -> Iterable[list[Row]]:
    groups: dict[str, list[Row]] = collections.defaultdict(list)
    for call in calls:
        groups[call["chat"] if bucket == "chat" else ""].append(call)
    return groups.values()


def _within_rate(place: Place, bucket: str, rate: float, calls: list[Row]) -> Found:
    """Over any ten seconds no more than the rate allows, and what a stall squeezes together."""
    first = 0
    for last, call in enumerate(calls):
        while (call["t_ns"] - calls[first]["t_ns"]) / 1e9 > 10.0:
            first += 1
        seconds = (call["t_ns"] - calls[first]["t_ns"]) / 1e9
        if last - first + 1 > rate * (seconds + 1 + SQUEEZE_SECONDS):
            calls_seen = f"{last - first + 1} calls in {seconds:.1f} s to a {bucket} of {place.name}"
            yield None, f"{calls_seen}, where {rate:g} a second are allowed"
            return


def _time_was_waited(place: Place, calls: list[Row]) -> Found:
    told, until = 0.0, 0.0
    for call in sorted(calls, key=lambda call: call["t_ns"]):
        at = call["t_ns"] / 1e9
        if told + IN_FLIGHT_SECONDS < at < until - EARLY_SECONDS:
            early = f"{until - at:.2f} s before the time that it named {at - told:.2f} s earlier"
            yield None, f"{place.name} was called for {call['chat']} {early}"
        if call["decision"] == "429" and "retry_after" in call:
            told = call["done_ns"] / 1e9
            until = max(until, told + call["retry_after"])


def calls_in_flight_at_429(seen: Evidence) -> int:
    """Calls that were on their way when a 429 was said: admitted, and counted."""
    count = 0
    for place in BY_NAME.values():
        calls = [call for call in seen.calls if call["account"] == place.account]
        for group in _buckets(calls, "chat" if place.platform == "telegram" else "channel"):
            told = until = 0.0
            for call in sorted(group, key=lambda call: call["t_ns"]):
                count += told < call["t_ns"] / 1e9 < min(told + IN_FLIGHT_SECONDS, until - EARLY_SECONDS)
                if call["decision"] == "429" and "retry_after" in call:
                    told = call["done_ns"] / 1e9
                    until = told + call["retry_after"]
    return count
