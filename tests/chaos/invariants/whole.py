"""I15 to I27, and what faults saw: everything ends, nothing leaks, nothing is silent."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.evidence import Evidence, Key
from tests.chaos.generator import BY_NAME
from tests.chaos.invariants.base import Found, committed, holds, key_of_reply

DONE = {"handled", "parked", "skipped"}
PASSING = (503, 504, 0)  # answers while something is broken; 0: none
ATTEMPTS = 5
IDLE_IN_TRANSACTION_SECONDS = 15.0
MORE_CONNECTIONS, MORE_FILES, MORE_THREADS, MORE_BYTES = 20, 100, 300, 200 << 20
# Keys that live without an end: Celery's own, of a known number.
LASTING_KEYS = ("_kombu.binding", "handle", "send", "maintenance", "celery")
START_SECONDS = 3.0  # a call begins within 2 s of its intent, and is on its way
SAME_MOMENT_SECONDS = 0.3  # two transactions that met: their times are those of their beginnings


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
        answer = event["f"] == "garbage" and event["k"] != "invoke"
        if answer and event["status"] not in (event["expected"], *PASSING):
            yield None, f"{event['name']} was answered {event['status']}, not {event['expected']}"


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
        failed = [turn["attempt"] for turn in seen.turns_of.get(row["id"], []) if turn["outcome"] == "failed"]
        if not row["note"]:
            yield key, "is parked without a reason"
        if _since_the_last_first(failed) != list(range(1, ATTEMPTS + 1)):
            yield key, f"is parked after the attempts {failed}"
        if not any(reply["author"] == "system" for reply in seen.replies_of[row["lane"]]):
            yield key, "is parked, and the person heard nothing"


def _since_the_last_first(attempts: list[int]) -> list[int]:
    """Who hands a conversation back lets them begin anew."""
    return attempts[len(attempts) - 1 - attempts[::-1].index(1) :] if 1 in attempts else []


@holds("I24", "nobody removes or takes another's lock")
def locks_are_honest(seen: Evidence) -> Found:
    for words in seen.lock_faults:
        yield None, words


@holds("I26", "who takes over is not talked over: no older reply begins to go out, no turn is committed meanwhile")
def nobody_is_talked_over(seen: Evidence) -> Found:
    for lane, taken, back in _taken_over(seen):
        for turn in committed(seen, seen.messages_of[lane]):
            if taken + SAME_MOMENT_SECONDS < turn["ended"] < back - SAME_MOMENT_SECONDS:
                late = turn["ended"] - taken
                yield seen.key_by_id.get(turn["message_id"]), f"its turn was committed {late:.1f} s after a take-over"
        called = seen.called[(BY_NAME[seen.lanes[lane]["ch"]].account, seen.lanes[lane]["u"])]
        older = {reply["text"]: reply for reply in seen.replies_of[lane]
                 if reply["author"] == "bot" and reply["created"] < taken - SAME_MOMENT_SECONDS}  # fmt: skip
        for call in called:
            late = seen.began.w / 1e9 + seen.began.seconds(call["t_ns"]) - taken
            if call["text"] in older and late > START_SECONDS:
                key = key_of_reply(seen, older[call["text"]])
                yield key, f"a reply began to go out {late:.1f} s after a take-over"


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
