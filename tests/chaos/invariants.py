"""What must hold after a run, I1 to I27: functions from the evidence to violations, and to what was left unproven.

Readings. I4 is about numbered messages; what waits is younger than its window or gap. I5 holds for channels where we
give the order; on the others our numbers follow the platform's, except for messages marked late, and those are late for
a reason. I13: what a person saw first of each reply is in order; a second showing of a reply whose outcome was unknown
may come after the next one where the platform has no keys, and is counted. I14: calls that were on their way when a 429
was said (500 ms) are counted, not blamed. I15 and I16 are measured for every fault by ``run`` and bounded here.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.chaos.bots import UNHANDLED, chained, class_of, replies_to
from tests.chaos.evidence import Evidence, Key, Row, number_of
from tests.chaos.generator import BY_NAME, Place

DONE = {"handled", "parked", "skipped"}
PASSING = (503, 504, 0)  # answers while something is broken; 0: none
ATTEMPTS = 5
IN_FLIGHT_SECONDS = 0.5  # calls that were on their way when a 429 was said
EARLY_SECONDS = 0.1  # two clocks, and a number that is rounded
SQUEEZE_SECONDS = 2.0  # a stall of the machine moves calls into one window
IDLE_IN_TRANSACTION_SECONDS = 15.0
MORE_CONNECTIONS, MORE_FILES, MORE_THREADS, MORE_BYTES = 20, 100, 300, 200 << 20
# Keys that live without an end: Celery's own, of a known number.
LASTING_KEYS = ("_kombu.binding", "handle-", "send-", "maintenance", "unacked", "celery")
ACKED_SHARE = 0.95
START_SECONDS = 3.0  # a call begins within 2 s of its intent, and is on its way
SAME_MOMENT_SECONDS = 0.3  # two transactions that met: their times are those of their beginnings


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
    def add(function: Invariant) -> Invariant:
        INVARIANTS[name] = (words, function)
        return function

    return add


def judge(evidence: Evidence) -> list[Violation]:
    return [
        Violation(invariant=name, key=key, words=words)
        for name, (_, function) in INVARIANTS.items()
        for key, words in function(evidence)
    ]


def _place(row: Row) -> Place:
    return BY_NAME[row["ch"]]


# ---------------------------------------------------------------- storing


@holds("I1", "no message that was answered 2xx is lost or changed")
def nothing_is_lost(seen: Evidence) -> Found:
    for key in seen.acked:
        if key not in seen.sent:
            continue
        rows = seen.stored.get(key, [])
        if not rows:
            yield key, "was answered 2xx and is not there"
        elif rows[0]["text"] != as_stored(seen.sent[key]["text"]):
            yield key, "is stored with another text"


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
            yield (
                (lane["ch"], lane["u"], given),
                f"the lane counts {lane['last_sequence']} messages, its last number is {given}",
            )


@holds("I5", "numbers follow the real order, or the platform's where it gives one")
def order_is_kept(seen: Evidence) -> Found:
    for rows in seen.messages_of.values():
        match _place(rows[0]).order:
            case "arrival":
                yield from _real_order(seen, rows)
            case "window":
                yield from _platforms_order(rows, "order_key")
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


def _platforms_order(rows: list[Row], column: str) -> Found:
    last = 0
    for row in rows:
        if row["sequence"] is None or row["late"] or row["status"] == "missing" or row[column] is None:
            continue
        if row[column] <= last:
            yield (
                (row["ch"], row["u"], number_of(row["platform_id"])),
                f"number {row['sequence']} is the platform's {row[column]}, after its {last}",
            )
        last = max(last, row[column])


def _late_for_a_reason(rows: list[Row]) -> Found:
    holes = [
        (row["sequence"], row["external_sequence"], row["order_key"]) for row in rows if row["status"] == "missing"
    ]
    for row in rows:
        if row["late"] and not any(
            number < row["sequence"] and first <= row["external_sequence"] <= last for number, first, last in holes
        ):
            yield (
                (row["ch"], row["u"], number_of(row["platform_id"])),
                "is marked late, and no hole was closed before it",
            )


@holds("I6", "the answer comes after the commit")
def answered_after_commit(seen: Evidence) -> Found:
    committed = {row["id"]: row["committed"] for row in seen.rows["receipts"]}
    for key, answer in seen.acked.items():
        for row in seen.stored.get(key, [])[:1]:
            at = committed.get(row["receipt_id"])
            if at is None:
                yield key, "its receipt is not there"
            elif at > answer["w"] / 1e9:
                late = (at - answer["w"] / 1e9) * 1000
                yield key, f"was answered {late:.1f} ms before its commit"


# ---------------------------------------------------------------- handling


@holds("I7", "every message is handled exactly once")
def handled_once(seen: Evidence) -> Found:
    for key, rows in seen.stored.items():
        for row in rows:
            turns = [turn for turn in seen.turns_of.get(row["id"], []) if turn["outcome"] == "committed"]
            if len(turns) != (row["status"] == "handled"):
                yield key, f"is {row['status']}, with {len(turns)} committed turns"
            if row["status"] == "handled" and class_of(row["text"]) in UNHANDLED:
                yield key, "is marked handled, but its turn can only fail"
            if row["status"] == "parked" and class_of(row["text"]) not in UNHANDLED and not _may(seen, "parks"):
                yield key, f"is parked without need: {row['note']}"
            if row["status"] == "skipped" and not seen.lanes[row["lane"]]["epoch"]:
                yield key, "is skipped, and nobody acted on its lane"
    known = {row["id"] for row in seen.rows["messages"]}
    for turn in seen.rows["turns"]:
        if turn["message_id"] not in known:
            yield None, f"turn {turn['id']} is of a message that is not there"


def _may(seen: Evidence, what: str) -> bool:
    """Whether a fault of this run says so."""
    return any(what in fault.get("allows", ()) for fault in seen.faults)


@holds("I8", "messages are handled in the order of their numbers, and none is left out: the chain fits")
def handled_in_order(seen: Evidence) -> Found:
    for lane in seen.rows["lanes"]:
        handled = [row for row in seen.messages_of[lane["id"]] if row["status"] == "handled"]
        state = lane["state"] or {}
        if state.get("hash", "") != _fold(handled) or state.get("turns", 0) != len(handled):
            key = (lane["ch"], lane["u"], _first_broken_link(seen, handled))
            yield key, f"the chain is broken: {state.get('turns', 0)} turns, {len(handled)} handled"
        first = {turn["message_id"]: turn["id"] for turn in reversed(_committed(seen, handled))}
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


def _committed(seen: Evidence, rows: Iterable[Row]) -> list[Row]:
    return [turn for row in rows for turn in seen.turns_of.get(row["id"], []) if turn["outcome"] == "committed"]


def _first_broken_link(seen: Evidence, handled: list[Row]) -> int:
    """The number of the first message whose turn did not begin where the one before it ended."""
    digest = ""
    for row in handled:
        for turn in _committed(seen, [row])[:1]:
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
            yield (
                seen.key_by_id.get(turn["message_id"]),
                f"its turn began on the same state as that of message {other['message_id']}",
            )


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


# ---------------------------------------------------------------- delivering


def _showings(seen: Evidence) -> Iterator[tuple[Row, list[Row]]]:
    """Each reply of the bot with the times that its person saw it."""
    for lane, replies in seen.replies_of.items():
        place, user = _place(replies[0]), seen.lanes[lane]["u"]
        shown: dict[str, list[Row]] = collections.defaultdict(list)
        for call in seen.shown.get((place.account, user), []):
            shown[call["text"]].append(call)
        for reply in replies:
            if reply["author"] == "bot":
                yield reply, shown[reply["text"]]


def _key_of_reply(seen: Evidence, reply: Row) -> Key | None:
    return seen.key_by_id.get(reply["message_id"])


@holds("I11", "every reply is delivered at least once")
def delivered(seen: Evidence) -> Found:
    for reply, showings in _showings(seen):
        if reply["status"] == "sent" and not showings:
            yield _key_of_reply(seen, reply), "a reply is marked sent, nobody saw it"
        elif reply["status"] not in ("sent", "parked", "cancelled"):
            yield _key_of_reply(seen, reply), f"a reply is still {reply['status']}"
        elif reply["status"] == "parked" and not _may(seen, "parks replies"):
            yield _key_of_reply(seen, reply), f"a reply is parked without need: {reply['error']}"
        elif reply["status"] == "cancelled" and not seen.lanes[reply["lane"]]["epoch"]:
            yield _key_of_reply(seen, reply), "a reply is cancelled, nobody took over"


@holds("I12", "a reply is shown once where the platform takes a key, and as often as it was in doubt elsewhere")
def shown_once(seen: Evidence) -> Found:
    for reply, showings in _showings(seen):
        key, life = _key_of_reply(seen, reply), _place(reply).key_life
        again = list(itertools.pairwise(showings))
        if len(showings) > 1 and len({call["key"] for call in showings}) > 1:
            yield key, "a reply went out under two keys"
        elif life and any((b["done_ns"] - a["done_ns"]) / 1e9 < life for a, b in again):
            yield key, f"a reply was shown {len(showings)} times"
        elif not life and len(again) > max(reply["attempts"] - 1, 0):
            yield key, f"a reply was shown {len(showings)} times in {reply['attempts']} attempts"


@holds("I13", "a person sees replies in order")
def shown_in_order(seen: Evidence) -> Found:
    for lane, replies in seen.replies_of.items():
        place = _place(replies[0])
        numbers = {reply["text"]: reply for reply in replies}  # each text once: the sorry text once an hour
        greatest: Row | None = None
        met: set[str] = set()
        for call in seen.shown.get((place.account, seen.lanes[lane]["u"]), []):
            reply = numbers.get(call["text"])
            if reply is None:
                continue
            behind = greatest is not None and reply["sequence"] < greatest["sequence"]
            again = call["text"] in met
            if behind and not (again and not place.key_life) and not (again and reply["attempts"] > 1):
                yield _key_of_reply(seen, reply), f"reply {reply['sequence']} was shown after {greatest['sequence']}"  # type: ignore[index]
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


# ---------------------------------------------------------------- the whole


@holds("I15", "everything is done within the bound after a fault, and at the end")
def everything_ends(seen: Evidence) -> Found:
    if seen.drained_seconds is None or seen.drained_seconds > seen.drain_bound:
        words = "never" if seen.drained_seconds is None else f"after {seen.drained_seconds:.1f} s"
        yield _oldest_left(seen), f"the end: drained {words}, the bound is {seen.drain_bound:g} s"
    for fault in seen.faults:
        if fault["backlog_s"] is None or fault["backlog_s"] > fault["allowed_s"]:
            took = "more" if fault["backlog_s"] is None else f"{fault['backlog_s']:.1f} s"
            bound = f"the bound is {fault['bound_s']:g} s, {fault['allowed_s']:g} s here"
            yield None, f"{fault['name']}: the backlog took {took}, {bound}"


def _oldest_left(seen: Evidence) -> Key | None:
    left = [row for row in seen.rows["messages"] if row["status"] in ("pending", "waiting")]
    return seen.key_by_id.get(min(left, key=lambda row: row["received"])["id"]) if left else None


@holds("I16", "webhooks are answered 2xx again within the bound after a fault")
def answers_come_back(seen: Evidence) -> Found:
    for fault in seen.faults:
        if fault["answered_s"] is None or fault["answered_s"] > fault["allowed_s"]:
            yield None, f"{fault['name']}: first 2xx after {fault['answered_s']} s"


@holds("I17", "a reply goes out in its own channel's name, to its own person")
def tenants_are_apart(seen: Evidence) -> Found:
    people = {lane["u"]: BY_NAME[lane["ch"]].account for lane in seen.rows["lanes"]}
    for call in seen.calls:
        words = call["text"].split(":")
        if words[0] != seen.run or len(words) < 5:
            continue
        if people.get(words[1]) != call["account"] or words[1] != call["chat"]:
            yield None, f"a reply to {words[1]} went to {call['chat']} by {call['account']}"


@holds("I18", "Redis is clean: no lock outlives its work, no key lives for ever")
def redis_is_clean(seen: Evidence) -> Found:
    for key in seen.redis_keys:
        name = key["key"]
        if ":handling:" in name or ":sending:" in name:
            yield None, f"a lock is left: {name}"
        elif key["ttl"] == -1 and not name.startswith(LASTING_KEYS):
            yield None, f"a key without an end: {name}"


@holds("I19", "nothing leaks: connections, files, threads, memory")
def nothing_leaks(seen: Evidence) -> Found:
    connections = seen.rows["connections"]
    for row in connections:
        if (row["state"] or "").startswith("idle in") and row["seconds"] > IDLE_IN_TRANSACTION_SECONDS:
            yield None, f"a transaction is idle for {row['seconds']:.0f} s"
    if len(connections) > seen.connections_before + MORE_CONNECTIONS:
        yield None, f"{len(connections)} connections, {seen.connections_before} at the start"
    before, after = seen.processes
    for pid in before.keys() & after.keys():
        old, new = before[pid], after[pid]
        if old["began"] != new["began"]:
            continue
        for name, more in (("files", MORE_FILES), ("threads", MORE_THREADS), ("rss", MORE_BYTES)):
            if new[name] > old[name] + more:
                yield None, f"{new['part']} {pid}: {name} from {old[name]} to {new[name]}"


@holds("I20", "words of people and secrets are in the database only")
def words_stay_home(seen: Evidence) -> Found:
    for where, count in seen.leaks.items():
        yield None, f"{where} {count} times"


@holds("I21", "authentic requests get 2xx or 503, garbage gets what it deserves")
def answers_fit(seen: Evidence) -> Found:
    for key, attempts in seen.attempts.items():
        for _, end in attempts:
            if end and end["status"] not in (200, *PASSING):
                yield key, f"was answered {end['status']}"
    for event in seen.events:
        if (
            event["f"] == "garbage"
            and event["k"] != "invoke"
            and event["status"] not in (event["expected"], 503, 504, 0)
        ):
            words = f"{event['name']} was answered {event['status']}, not {event['expected']}"
            yield None, words


@holds("I22", "nothing is silent: what was said is handled, set aside with a reason, or was never taken")
def nothing_is_silent(seen: Evidence) -> Found:
    for key in seen.sent:
        states = {row["status"] for row in seen.stored.get(key, [])}
        if (key in seen.acked or states) and not states & DONE:
            yield key, f"is {', '.join(states) or 'nowhere'} at the end"


@holds("I23", "what is parked is explained, after all its attempts, and the person heard something")
def parked_is_explained(seen: Evidence) -> Found:
    for row in seen.rows["messages"]:
        if row["status"] != "parked":
            continue
        key = seen.key_by_id.get(row["id"])
        failed = sum(turn["outcome"] == "failed" for turn in seen.turns_of.get(row["id"], []))
        if not row["note"]:
            yield key, "is parked without a reason"
        if failed != ATTEMPTS:
            yield key, f"is parked after {failed} attempts"
        if not any(reply["author"] == "system" for reply in seen.replies_of[row["lane"]]):
            yield key, "is parked, and the person heard nothing"


@holds("I24", "nobody removes or takes another's lock")
def locks_are_honest(seen: Evidence) -> Found:
    for words in seen.lock_faults:
        yield None, words


@holds("I26", "who takes over is not talked over: no older reply begins to go out, no turn is committed meanwhile")
def nobody_is_talked_over(seen: Evidence) -> Found:
    for lane, taken, back in _taken_over(seen):
        for turn in _committed(seen, seen.messages_of[lane]):
            if taken + SAME_MOMENT_SECONDS < turn["ended"] < back - SAME_MOMENT_SECONDS:
                late = turn["ended"] - taken
                yield seen.key_by_id.get(turn["message_id"]), f"its turn was committed {late:.1f} s after a take-over"
        called = seen.called[(BY_NAME[seen.lanes[lane]["ch"]].account, seen.lanes[lane]["u"])]
        older = {reply["text"]: reply for reply in seen.replies_of[lane]
                 if reply["author"] == "bot" and reply["created"] < taken - SAME_MOMENT_SECONDS}  # fmt: skip
        for call in called:
            late = seen.began.w / 1e9 + seen.began.seconds(call["t_ns"]) - taken
            if call["text"] in older and late > START_SECONDS:
                yield (
                    _key_of_reply(seen, older[call["text"]]),
                    f"a reply began to go out {late:.1f} s after a take-over",
                )


def _taken_over(seen: Evidence) -> Iterator[tuple[int, float, float]]:
    """Lanes that a person had: from when, until when."""
    since: dict[int, float] = {}
    for act in seen.rows["audits"]:
        if act["verb"] == "take_over":
            since.setdefault(act["lane"], act["at"])
        elif act["lane"] in since:
            yield act["lane"], since.pop(act["lane"]), act["at"]
    for lane, taken in since.items():
        yield lane, taken, float("inf")


@holds("I27", "only a failure of this message spends its attempts")
def attempts_are_spent_by_failures(seen: Evidence) -> Found:
    for message, turns in seen.turns_of.items():
        failed = 0
        for turn in sorted(turns, key=lambda turn: turn["id"]):
            if turn["attempt"] > failed + 1:
                yield seen.key_by_id.get(message), f"is in attempt {turn['attempt']} after {failed} failures"
                break
            failed += turn["outcome"] == "failed"


@holds("faults", "what only the fault itself can judge")
def faults_saw_nothing_wrong(seen: Evidence) -> Found:
    for fault in seen.faults:
        for words in fault["problems"]:
            yield None, f"{fault['name']}: {words}"


# ---------------------------------------------------------------- I25: not vacuous


def seen_to_happen(seen: Evidence) -> dict[str, int]:
    """How often what a run must meet was met."""
    return {
        "taken over": taken_over(seen),
        "duplicates met": sum(row["duplicates"] for row in seen.rows["receipts"]),
        "rescued by the sweeper": rescued(seen),
        "429 said": sum(call["decision"] == "429" for call in seen.calls),
        "sends in doubt": sum(reply["attempts"] > 1 for reply in seen.rows["replies"]),
        "parked": sum(row["status"] == "parked" for row in seen.rows["messages"]),
    }


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
            count += at is not None and at - max(free, row["received"]) > 2.8 and _place(row).order == "arrival"
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
