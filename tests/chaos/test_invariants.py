"""Each invariant is given a history that breaks it, and must say so; the good one that it was made from must pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import invariants
from tests.chaos.bots import chained, replies_to
from tests.chaos.counterexample import tell
from tests.chaos.evidence import Evidence
from tests.chaos.generator import BY_NAME
from tests.chaos.history import Moment
from tests.chaos.invariants import whole

RUN = "canary00"
BEGAN = Moment()
SECOND = 10**9
Story = dict[str, Any]


def wall(seconds: float) -> float:
    return BEGAN.w / SECOND + seconds


def clock(seconds: float) -> int:
    return BEGAN.t + int(seconds * SECOND)


class Teller:
    """A run in which all is well: three people, five messages each."""

    def __init__(self) -> None:
        self.events: list[Story] = []
        names = "lanes messages replies turns receipts connections pauses audits bodies"
        self.rows: dict[str, list[Story]] = {name: [] for name in names.split()}
        self.calls: list[Story] = []
        self.begun: list[Story] = []
        self._attempt = 0
        for place, user in (("plain", "100001"), ("keep", "keep-1"), ("batch", "DE.batch1")):
            self._person(place, user)
        self._event(30, "run", "event", "over")
        self.faults = [{"name": "F1", "title": "a kill", "begun": clock(2), "healed": clock(3), "bound_s": 10.0,
                        "allowed_s": 20.0, "backlog_s": 1.0, "answered_s": 0.1, "evidence": ["gone"], "missed": [],
                        "problems": [], "allows": []}]  # fmt: skip

    def _person(self, place: str, user: str) -> None:
        lane, digest = len(self.rows["lanes"]) + 1, ""
        for number in range(1, 6):
            text = f"{RUN}:{user}:{number}:plain:nonce"
            digest = self._message(place, user, lane, number, text, digest)
        self.rows["lanes"].append({"id": lane, "ch": place, "u": user, "last_sequence": 5, "epoch": 0,
                                   "state": {"hash": digest, "turns": 5}})  # fmt: skip

    def _message(self, place: str, user: str, lane: int, number: int, text: str, before: str) -> str:
        at, message_id = float(number), lane * 100 + number
        words = {"ch": place, "u": user, "m": number}
        self._event(at, "gen", "event", "message", **words, text=text, kind="plain", h="body", giveup=False)
        self._attempt += 1
        self._event(at, "gen", "invoke", "webhook", **words, a=self._attempt, web=0)
        self._event(at + 0.2, "gen", "ok", "webhook", **words, a=self._attempt, status=200)
        self.rows["bodies"].append({"receipt_id": message_id, "hash": "body"})
        self.rows["receipts"].append({"id": message_id, "duplicates": 1, "committed": wall(at + 0.1)})
        platform_id = str(number) if place == "plain" else f"{user}-{number}"
        self.rows["messages"].append(
            {"id": message_id, "lane": lane, "ch": place, "u": user, "sequence": number, "status": "handled",
             "text": text, "platform_id": platform_id, "external_sequence": None, "order_key": number, "late": False,
             "note": "", "receipt_id": message_id, "replay_of": None, "received": wall(at), "settled": wall(at + 0.4)}
        )  # fmt: skip
        self.begun.append({"t": clock(at + 0.2), "pid": 11, "lane": lane, "sequence": number})
        self.rows["turns"].append({"id": message_id, "lane": lane, "message_id": message_id, "attempt": 1,
                                   "worker": "w" * 8, "outcome": "committed", "error_type": "",
                                   "hash_before": before or None, "ended": wall(at + 0.4)})  # fmt: skip
        digest = chained(before, number, text)
        self._reply(place, user, lane, message_id, replies_to(number, text, digest)[0], at + 0.5)
        return digest

    def _reply(self, place: str, user: str, lane: int, message_id: int, text: str, at: float) -> None:
        sequence = 1 + sum(reply["lane"] == lane for reply in self.rows["replies"])
        self.rows["replies"].append({"id": message_id, "lane": lane, "ch": place, "u": user, "sequence": sequence,
                                     "message_id": message_id, "author": "bot", "status": "sent", "attempts": 1,
                                     "text": text, "error": "", "created": wall(at), "settled": wall(at + 0.2),
                                     "delivered": "read" if place == "batch" else "none"})  # fmt: skip
        self.calls.append({"t_ns": clock(at + 0.1), "done_ns": clock(at + 0.1), "account": BY_NAME[place].account,
                           "chat": user, "text": text, "key": f"key-{message_id}", "decision": "ok", "accepted": True,
                           "method": "send", "name": f"wamid.{message_id}"})  # fmt: skip
        if place == "batch":
            self._event(at + 0.2, "gen", "ok", "status", ch=place, reply=f"wamid.{message_id}", word="read", status=200)

    def _event(self, at: float, who: str, kind: str, what: str, /, **words: Any) -> None:
        self.events.append({"t": clock(at), "w": int(wall(at) * SECOND), "p": who, "k": kind, "f": what, **words})

    def evidence(self) -> Evidence:
        return Evidence(run=RUN, began=BEGAN, events=self.events, rows=self.rows, calls=self.calls, begun=self.begun,
                        faults=self.faults, drained_seconds=1.0)  # fmt: skip

    # ------------------------------------------------------------ to be broken

    def message(self, number: int = 3) -> Story:
        return self.rows["messages"][number - 1]

    def reply(self, number: int = 3) -> Story:
        return self.rows["replies"][number - 1]

    def turn(self, number: int = 3) -> Story:
        return self.rows["turns"][number - 1]

    def again(self, name: str, number: int = 3, **changed: Any) -> None:
        rows = self.rows[name]
        rows.append({**copy.deepcopy(rows[number - 1]), **changed})

    def show(self, number: int, **changed: Any) -> None:
        """The platform shows a reply of the first person once more, at the end."""
        self.calls.append({**self.calls[number - 1], "t_ns": clock(9), "done_ns": clock(9), **changed})

    def say(self, number: int, word: str) -> None:
        """The platform says this of a reply of the third person instead."""
        told = [event for event in self.events if event["f"] == "status"]
        told[number - 11]["word"] = word

    def hurt(self, **changed: Any) -> None:
        self.faults[0].update(changed)

    def garbage(self, status: int) -> None:
        self._event(1, "gen", "fail", "garbage", a=99, ch="plain", name="wrong secret", status=status, expected=401)


def late(run: Teller) -> None:
    run.message(8)["ch"] = run.rows["lanes"][1]["ch"] = "numbered"
    for number in range(6, 11):
        run.rows["messages"][number - 1].update(ch="numbered", external_sequence=number - 5)
    run.message(8)["late"] = True


def swap_numbers(run: Teller) -> None:
    run.message(2)["sequence"], run.message(3)["sequence"] = 3, 2


def swap_shown(run: Teller) -> None:
    for name in ("text", "key"):
        run.calls[1][name], run.calls[2][name] = run.calls[2][name], run.calls[1][name]


def window(run: Teller) -> None:
    run.rows["lanes"][0]["ch"] = "window"
    for number in range(1, 6):
        run.message(number)["ch"] = "window"
    run.message(2)["order_key"] = 7


def told_to_wait(run: Teller) -> None:
    run.show(1, decision="429", retry_after=3.0, accepted=False)
    run.show(2, t_ns=clock(10), done_ns=clock(10), accepted=False)


def burst(run: Teller) -> None:
    for n in range(40):
        run.show(1, account="3:slow", text="", t_ns=clock(1 + n / 100), accepted=False)


def parked(run: Teller, **changed: Any) -> None:
    run.message().update(status="parked", note="it failed too often", text=f"{RUN}:100001:3:poison:nonce", **changed)


BROKEN: list[tuple[str, str, Callable[[Teller], object]]] = [
    ("I1", "a message is gone", lambda run: run.rows["messages"].remove(run.message())),
    ("I1", "a text is cut", lambda run: run.message().update(text="cut")),
    ("I1", "a body is another", lambda run: run.rows["bodies"][2].update(hash="other")),
    ("I2", "nobody said it", lambda run: run.again("messages", platform_id="77", sequence=6)),
    ("I3", "stored twice", lambda run: run.again("messages", id=999, sequence=6)),
    ("I4", "a hole", lambda run: run.message(5).update(sequence=6)),
    ("I4", "a number twice", lambda run: run.message(5).update(sequence=4)),
    ("I4", "a reply number is missing", lambda run: run.reply(5).update(sequence=7)),
    ("I4", "the lane counts more", lambda run: run.rows["lanes"][0].update(last_sequence=9)),
    ("I5", "real order", swap_numbers),
    ("I5", "the platform's order", window),
    ("I5", "late without a hole", late),
    ("I6", "answered before its commit", lambda run: run.rows["receipts"][2].update(committed=wall(3.25))),
    ("I6", "no receipt", lambda run: run.rows["receipts"].pop(2)),
    ("I7", "two turns", lambda run: run.again("turns", id=999)),
    ("I7", "no turn", lambda run: run.rows["turns"].pop(2)),
    ("I7", "parked without need", lambda run: run.message().update(status="parked", note="why")),
    ("I7", "a turn of nothing", lambda run: run.again("turns", id=999, message_id=12345)),
    ("I7", "what fails always is marked handled", lambda run: run.message().update(text=f"{RUN}:100001:3:poison:x")),
    ("I7", "skipped, and nobody was there", lambda run: run.message().update(status="skipped", note="why")),
    ("I8", "the chain is another", lambda run: run.rows["lanes"][0]["state"].update(hash="0")),
    ("I8", "a turn too many", lambda run: run.rows["lanes"][0]["state"].update(turns=6)),
    ("I8", "committed out of order", lambda run: run.turn(2).update(id=104.5)),
    ("I9", "twice on the same state", lambda run: run.turn(4).update(hash_before=run.turn(3)["hash_before"])),
    ("I10", "a reply is missing", lambda run: run.rows["replies"].remove(run.reply(5))),
    ("I10", "a reply too many", lambda run: run.again("replies", id=999, sequence=6)),
    ("I10", "other words", lambda run: run.reply().update(text="other words")),
    ("I11", "marked sent, not shown", lambda run: run.calls.pop(2)),
    ("I11", "never sent", lambda run: run.reply().update(status="pending")),
    ("I11", "parked without need", lambda run: run.reply().update(status="parked")),
    ("I11", "cancelled, and nobody took over", lambda run: run.reply().update(status="cancelled")),
    ("I12", "twice with a key", lambda run: run.show(8)),
    ("I12", "twice without a doubt", lambda run: run.show(3)),
    ("I12", "under two keys", lambda run: run.show(8, key="another")),
    ("I13", "swapped", swap_shown),
    ("I13", "again after the next, with a key", lambda run: run.show(8)),
    ("I14", "before the time that was named", told_to_wait),
    ("I14", "a burst", burst),
    ("I15", "never recovered", lambda run: run.hurt(backlog_s=None)),
    ("I15", "recovered late", lambda run: run.hurt(backlog_s=21.0)),
    ("I16", "no answer", lambda run: run.hurt(answered_s=None)),
    ("I17", "by another channel", lambda run: run.calls[2].update(account="keep/any")),
    ("I17", "to another person", lambda run: run.calls[2].update(chat="100002")),
    ("I21", "an error for what is authentic", lambda run: run.events[2].update(status=500, k="info")),
    ("I21", "garbage is taken", lambda run: run.garbage(200)),
    ("I22", "pending at the end", lambda run: run.message().update(status="pending")),
    ("I22", "acknowledged and nowhere", lambda run: run.rows["messages"].remove(run.message())),
    ("I23", "no reason", lambda run: parked(run) or run.message().update(note="")),
    ("I23", "too few attempts", parked),
    ("I28", "seen, and shown as failed", lambda run: run.reply(13).update(status="failed")),
    ("I28", "failed after it was sent", lambda run: run.say(13, "failed")),
    ("I28", "failed, and nobody said so", lambda run: run.say(13, "sent") or run.reply(13).update(status="failed")),
    ("I28", "shown again after a status", lambda run: run.show(13)),
    ("faults", "a fault saw something", lambda run: run.hurt(problems=["a webhook waited for 9 s"])),
]  # fmt: skip


def found_by(name: str, seen: Evidence) -> list[tuple[Any, str]]:
    return list(invariants.INVARIANTS[name][1](seen))


def test_a_run_in_which_all_is_well_breaks_nothing() -> None:
    assert invariants.judge(Teller().evidence()) == []


@pytest.mark.parametrize(("name", "what", "break_it"), BROKEN, ids=[f"{name} {what}" for name, what, _ in BROKEN])
def test_what_is_broken_is_found(name: str, what: str, break_it: Callable[[Teller], object]) -> None:
    run = Teller()
    break_it(run)
    assert found_by(name, run.evidence())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("I15", {"drained_seconds": None}),
        ("I15", {"drained_seconds": 61.0}),
        ("I18", {"redis_keys": [{"key": "{lanes}:handling:7", "ttl": 3, "type": "hash"}]}),
        ("I18", {"redis_keys": [{"key": "mine", "ttl": -1, "type": "string"}]}),
        ("I19", {"processes": ({1: {"part": "A", "rss": 1, "files": 9, "threads": 9, "began": 1.0}},
                               {1: {"part": "A", "rss": 1 << 30, "files": 9, "threads": 9, "began": 1.0}})}),
        ("I20", {"leaks": {"web-0.log: canary": 3}}),
        ("I24", {"lock_faults": ["a lock was removed by another"]}),
    ],
)  # fmt: skip
def test_what_is_seen_outside_the_database_counts(name: str, change: dict[str, Any]) -> None:
    seen = Teller().evidence()
    for attribute, value in change.items():
        setattr(seen, attribute, value)
    assert found_by(name, seen)


def test_idle_transactions_and_many_connections_are_leaks() -> None:
    run = Teller()
    run.rows["connections"] = [{"pid": 1, "application_name": "", "state": "idle in transaction", "seconds": 16.0}]
    assert found_by("I19", run.evidence())
    run.rows["connections"] = [{"pid": n, "application_name": "", "state": "idle", "seconds": 1.0} for n in range(30)]
    assert found_by("I19", run.evidence())


def test_a_second_showing_of_a_reply_in_doubt_is_admitted_without_keys_only() -> None:
    run = Teller()
    run.reply(3)["attempts"] = 2
    run.show(3)
    assert invariants.judge(run.evidence()) == []
    run.reply(8)["attempts"] = 2
    run.show(8)
    assert found_by("I12", run.evidence())


def test_a_sorry_text_sent_twice_is_not_taken_for_disorder() -> None:
    run = Teller()
    for number in (2, 5):
        run.reply(number).update(text="sorry", author="system")
        run.calls[number - 1]["text"] = "sorry"
    assert found_by("I13", run.evidence()) == []
    run.calls[2], run.calls[3] = run.calls[3], run.calls[2]
    assert found_by("I13", run.evidence())


def test_a_call_in_flight_at_a_429_is_counted_not_blamed() -> None:
    run = Teller()
    run.show(1, decision="429", retry_after=3.0, accepted=False)
    run.show(2, t_ns=clock(9.3), done_ns=clock(9.3), accepted=False)
    assert found_by("I14", run.evidence()) == []
    assert invariants.calls_in_flight_at_429(run.evidence()) == 1


def test_a_run_that_proved_nothing_is_not_a_pass() -> None:
    run = Teller()
    assert invariants.unproven(run.evidence(), ["duplicates met"]) == []
    assert invariants.unproven(run.evidence(), ["taken over"])
    run.hurt(missed=["nobody was hit"])
    assert any("nobody was hit" in reason for reason in invariants.unproven(run.evidence(), []))
    run.hurt(missed=[], evidence=[])
    assert invariants.unproven(run.evidence(), [])
    silent = Teller()
    silent.events = [event for event in silent.events if event["k"] != "ok"]
    assert invariants.unproven(silent.evidence(), [])


def test_takeovers_and_rescues_are_counted() -> None:
    run = Teller()
    run.begun.append({"t": clock(3.3), "pid": 12, "lane": 1, "sequence": 3})
    assert invariants.taken_over(run.evidence()) == 1
    run.begun[1]["t"] = clock(2 + 3.5)
    assert invariants.rescued(run.evidence()) == 1


def test_a_counterexample_tells_of_one_message_in_the_order_of_time() -> None:
    run = Teller()
    run.again("turns", number=3, id=999)
    run.again("turns", number=4, id=998)
    seen = run.evidence()
    story = tell(seen, invariants.judge(seen))
    assert "plain/100001/3" in story
    assert "100001/4" not in story
    times = [float(line.split()[0]) for line in story.splitlines()[1:]]
    assert times == sorted(times)
    assert "turn 999" in story


def test_attempts_start_again_at_zero_after_a_hand_back() -> None:
    assert whole._since_the_last_first([1, 1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5]
    assert whole._since_the_last_first([1, 2, 4, 5]) == [1, 2, 4, 5]
    assert whole._since_the_last_first([2, 3]) == []
