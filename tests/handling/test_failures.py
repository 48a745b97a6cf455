"""A failure has an owner: what a bot may do wrong, and who pays for it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.kit.doubles import Double
from tests.kit.lanes import BOTS, Lanes
from tests.kit.platforms import telegram, telegram_text
from tests.kit.shared import shared
from tests.kit.stack import SLACK, wait_until

pytestmark = [pytest.mark.xdist_group("handling"), pytest.mark.timeout(400)]

HURRY = "UPDATE conversation SET not_before = NULL, due_at = now() WHERE id = %s AND not_before > now() RETURNING id"


lanes = shared(Lanes, roles="handle,sweep", env=BOTS)


@pytest.fixture(autouse=True)
def nothing_fails(lanes: Lanes) -> None:
    """Failures in a row of different tests must not stop the bot."""
    lanes.stack.query("DELETE FROM pause")
    lanes.settled(lanes.say(lanes.channel(), "fine", "hello"))


# ---------------------------------------------------------------- what a turn may say and remember


def test_a_payment_is_approved_and_typing_shown_while_the_persons_turn_takes_long(lanes: Lanes) -> None:
    user, secret = 7007, "s3cret-Token-0123456789"
    person = {"id": user, "is_bot": False, "first_name": "Ada"}
    money = {"currency": "XTR", "total_amount": 50, "invoice_payload": "order-7"}

    def post(number: int, **member: Any) -> None:
        assert lanes.stack.post(channel, *telegram(channel, {"update_id": 7_700_000 + number, **member})) == 200

    def paid(number: int) -> dict[str, Any]:
        payment = {**money, "telegram_payment_charge_id": "charge-1", "provider_payment_charge_id": "x"}
        about = {"from": person, "chat": {"id": user, "type": "private"}, "date": 1_790_000_000}
        return {"message_id": number, **about, "successful_payment": payment}

    with Double() as double:
        channel = lanes.stack.add_channel("telegram", bot="obedient", token="1:abc", secret_token=secret,
                                          api_base=double.url)  # fmt: skip
        assert lanes.stack.post(channel, *telegram_text(channel, user, 1, "wait 60")) == 200
        lane = lanes.stack.value("SELECT id FROM conversation WHERE channel_id = %s", channel.id)
        lanes.begun(lane)
        for number, payload in ((2, "order-7"), (3, "a bribe")):
            query = {"id": f"pq{number}", "from": person, **money, "invoice_payload": payload}
            post(number, pre_checkout_query=query)
            post(number, pre_checkout_query=query)  # as Telegram repeats what it takes for lost
        wait_until(lambda: len(double.calls("answerPreCheckoutQuery")) >= 2, 10, "both answers")
        wait_until(lambda: double.calls("sendChatAction"), 10, "typing")
        post(4, message=paid(4))
        post(5, message=paid(5))  # the same charge
        with lanes.released():
            lanes.settled(lane)
        answers = [call["body"] for call in double.calls("answerPreCheckoutQuery")]
    assert sorted(answers, key=str) == sorted([{"pre_checkout_query_id": "pq2", "ok": True},
        {"pre_checkout_query_id": "pq3", "ok": False, "error_message": "no a bribe"}], key=str)  # fmt: skip
    assert lanes.messages(lane, "kind") == ["message", "checkout", "checkout", "payment"]
    assert [line.sequence for line in lanes.done(lane, "ended")] == [1, 4]


@pytest.mark.slow
def test_a_turn_sees_the_person_the_history_and_its_own_state(lanes: Lanes) -> None:
    channel = lanes.channel()
    lane = lanes.say(channel, "u", "hello", "describe", "recall 4", "remember 65000")
    lanes.settled(lane)
    assert lanes.replies(lane)[:2] == ["1: hello", " u message web"]
    assert lanes.replies(lane)[2] == "user=hello | user=describe | bot=1: hello | bot= u message web"
    assert lanes.stack.value("SELECT state -> 'seen' FROM conversation_state WHERE conversation_id = %s", lane) == [
        1,
        2,
        3,
        4,
    ]
    assert lanes.turns(lane, "log")[1] == ["seen u"]


def test_choices_and_media_are_replies_in_order(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "offer")
    lanes.settled(lane)
    picture, question = lanes.replies(lane, "body")
    assert picture["media"]["url"].endswith("a.png")
    assert [choice["id"] for choice in question["choices"]] == ["a", "b", "Plum"]
    assert question["media"] == {"kind": "file", "url": "https://example.org/b"}


@pytest.mark.parametrize("text", [
    "nul", "surrogate", "object", "remember 65600", "talk 101", "raise", "stray", "exit",
], ids=lambda text: text.replace(" ", "-"))  # fmt: skip
def test_a_turn_that_cannot_be_written_is_a_failed_attempt_of_its_message_only(lanes: Lanes, text: str) -> None:
    channel = lanes.channel()
    bad, good = lanes.say(channel, "bad", text), lanes.say(channel, "good", "hello")
    lanes.settled(good)
    wait_until(lambda: lanes.turns(bad)[:1] == ["failed"], 10, "the failed attempt")
    assert lanes.messages(bad) == ["pending"]
    assert lanes.replies(bad) == []
    assert lanes.replies(good) == ["1: hello"]
    pause(lanes, bad)


def test_async_bots_fail_as_others_do(lanes: Lanes) -> None:
    channel = lanes.channel("obedient_async")
    bad = [lanes.say(channel, text, text) for text in ("exit", "cancel")]
    good = lanes.say(channel, "good", "wait 0.5", "hello")
    lanes.settled(good)
    for lane in bad:
        wait_until(lambda lane=lane: lanes.turns(lane)[:1] == ["failed"], 10, "the failed attempt")
    pause(lanes, *bad)


def test_a_bot_that_does_not_exist_spends_no_attempt_and_pauses_nothing(lanes: Lanes) -> None:
    channel = lanes.channel("nobody")
    waiting = [lanes.say(channel, f"n{n}", "hello") for n in range(10)]
    said = [f'"conversation":{lane},' for lane in waiting]
    wait_until(lambda: all(word in lanes.stack.logs() for word in said), 20, "every lane was released")
    assert lanes.stack.value("SELECT count(*) FROM pause") == 0
    assert {(tuple(lanes.messages(lane)), lanes.lane(lane, "attempts")) for lane in waiting} == {(("pending",), 0)}
    [(known,)] = lanes.stack.query("SELECT bots FROM worker WHERE kind = 'handle' AND NOT dead")
    assert ("obedient" in known, "nobody" in known) == (True, False)
    lanes.stack.query("UPDATE channel SET bot = 'echo' WHERE id = %s", channel)
    lanes.settled(*waiting, seconds=40)
    assert {tuple(lanes.replies(lane)) for lane in waiting} == {("hello",)}


# ---------------------------------------------------------------- the table of transitions


def test_the_fifth_failure_parks_and_one_sorry_text_stands_in_its_place(lanes: Lanes) -> None:
    channel = lanes.channel(parked_policy="skip", sorry_text="so sorry")
    lane = lanes.say(channel, "u", "one", "raise", "three", "raise", "five")
    hurried(lanes, lane)
    assert lanes.messages(lane) == ["handled", "parked", "handled", "parked", "handled"]
    assert lanes.replies(lane) == ["1: one", "so sorry", "3: three", "5: five"]
    assert lanes.turns(lane, "outcome, attempt")[1:6] == [("failed", n) for n in range(1, 6)]
    assert lanes.lane(lane, "mode, epoch, next_sequence, attempts, blocked, due_at") == ("bot", 0, 6, 0, False, None)


def test_the_log_says_of_each_turn_what_it_came_to(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(parked_policy="human"), "u", "one", "raise")
    wait_until(lambda: lanes.turns(lane) == ["committed", "failed"], 10, "the first failure")

    def said() -> list[str]:
        lines = [line for line in lanes.stack.logs().splitlines() if '"turn written"' in line]
        written = [json.loads(line[line.index("{") :]) for line in lines]
        return [each["status"] for each in written if each["conversation"] == lane]

    wait_until(lambda: len(said()) >= 2, 10, "two lines")
    assert said()[:2] == ["committed", "failed"]
    pause(lanes, lane)


def test_policy_human_lets_a_person_answer(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "raise", "two")
    hurried(lanes, lane, until="parked")
    assert lanes.messages(lane) == ["parked", "pending"]
    assert lanes.replies(lane, "author, status") == [("system", "pending")]
    assert lanes.lane(lane, "mode, epoch, next_sequence, blocked, due_at") == ("human", 1, 2, False, None)


def test_policy_block_keeps_the_head(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(parked_policy="block"), "u", "raise", "two")
    hurried(lanes, lane, until="parked")
    assert lanes.messages(lane) == ["parked", "pending"]
    assert lanes.lane(lane, "mode, epoch, next_sequence, blocked, due_at") == ("bot", 0, 1, True, None)


def test_a_later_message_neither_shortens_the_wait_nor_overtakes(lanes: Lanes) -> None:
    channel = lanes.channel()
    lane = lanes.say(channel, "u", "raise")
    wait_until(lambda: lanes.turns(lane) == ["failed"], 10, "the first failure")
    wait = "UPDATE conversation SET not_before = now() + interval '1 h', due_at = now() + interval '1 h' WHERE id = %s"
    lanes.stack.query(wait, lane)
    lanes.say(channel, "u", "two")
    time.sleep(1)
    assert lanes.turns(lane) == ["failed"]
    assert lanes.lane(lane, "due_at = not_before AND due_at > now() + interval '59 min'")


def test_hand_over_stops_the_bot_and_its_words_still_go_out(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "hand_over wants a refund", "two")
    wait_until(lambda: lanes.messages(lane)[0] == "handled", 10, "the turn")
    time.sleep(0.5)
    assert lanes.messages(lane, "status, note") == [("handled", "handed over: wants a refund"), ("pending", "")]
    assert lanes.replies(lane, "body ->> 'text', status") == [("a person will answer", "pending")]
    assert lanes.lane(lane, "mode, epoch, next_sequence, due_at, cancelled_through") == ("human", 1, 2, None, 0)


def test_events_and_settled_rows_pass_without_the_bot(lanes: Lanes) -> None:
    channel = lanes.channel()
    lanes.say(channel, "u", "edited", kind="edit", starts_turn=False, woken=False)
    lanes.say(channel, "u", "gone", status="skipped", woken=False)
    lanes.say(channel, "u", "", kind="missing", status="missing", woken=False)
    lane = lanes.say(channel, "u", "hello")
    lanes.settled(lane)
    assert lanes.messages(lane) == ["handled", "skipped", "missing", "handled"]
    assert [line.sequence for line in lanes.done(lane, "begun")] == [4]
    assert lanes.lane(lane, "next_sequence, due_at") == (5, None)


def test_a_hole_blocks_where_its_channel_says_so(lanes: Lanes) -> None:
    channel = lanes.channel(gap_policy="block")
    lanes.say(channel, "u", "", kind="missing", status="missing", woken=False)
    lane = lanes.say(channel, "u", "hello")
    wait_until(lambda: lanes.lane(lane, "blocked"), 10, "the block")
    assert lanes.lane(lane, "next_sequence, due_at") == (1, None)
    assert lanes.messages(lane) == ["missing", "pending"]


def test_what_the_database_refuses_parks_after_five_attempts(lanes: Lanes) -> None:
    """As a bug of ours would: nothing that a bot may say gets this far."""
    lanes.stack.query("""CREATE OR REPLACE FUNCTION refuse_cursed() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'cursed' USING ERRCODE = 'check_violation'; END $$""")
    lanes.stack.query("""CREATE OR REPLACE TRIGGER cursed BEFORE INSERT ON reply FOR EACH ROW
        WHEN (NEW.body ->> 'text' LIKE '1: cursed') EXECUTE FUNCTION refuse_cursed()""")
    channel = lanes.channel()
    cursed, good = lanes.say(channel, "c", "cursed"), lanes.say(channel, "g", "hello")
    hurried(lanes, cursed)
    assert lanes.messages(cursed) == ["parked"]
    assert lanes.turns(cursed, "error_type") == ["DatabaseRefused"] * 5
    assert lanes.messages(good) == ["handled"]


# ---------------------------------------------------------------- whose failure it is


@pytest.mark.slow
def test_a_bot_that_fails_for_everybody_parks_nobody_and_catches_up_when_cured(lanes: Lanes) -> None:
    channel = lanes.channel()
    broken = lanes.stack.folder / "broken"
    broken.touch()
    try:
        waiting = [lanes.say(channel, f"w{n}", "one", "two") for n in range(40)]
        wait_until(lambda: stops(lanes, channel), 20, "the pause")
        wait_until(lambda: lanes.stack.value("SELECT count(*) FROM turn WHERE outcome = 'paused'") > 0, 20,
                   "a probe that failed")  # fmt: skip
    finally:
        broken.unlink()
    lanes.stack.query("UPDATE pause SET probe_at = now()")  # the next probe: 30 s at most
    lanes.settled(*waiting, seconds=30)
    assert not stops(lanes, channel)
    lanes.assert_in_order(*waiting)


@pytest.mark.slow
def test_a_message_that_crashes_its_worker_is_parked_alone(lanes: Lanes) -> None:
    channel = lanes.channel(parked_policy="skip")
    good = [lanes.say(channel, f"g{n}", "wait 0.3", "hello", woken=False) for n in range(63)]
    bad = lanes.say(channel, "bad", "crash", "after", woken=False)
    before = lanes.stack.pids("handle")
    lanes.wake(*good, bad)
    wait_until(lambda: lanes.lane(bad, "suspect"), 20, "the suspicion")
    hurried(lanes, bad, seconds=40)
    lanes.settled(*good)
    assert lanes.messages(bad) == ["parked", "handled"]
    assert lanes.turns(bad, "outcome, error_type")[:5] == [("failed", "Crashed")] * 5
    assert all(lanes.turns(lane) == ["committed"] * 2 for lane in good)
    lanes.assert_in_order(*good)
    assert lanes.stack.pids("handle") != before
    workers = {line.pid for line in lanes.done(bad, "begun")}
    assert len(workers) == 7, "one worker, five trials, and the last message"


@pytest.mark.slow
def test_three_restarts_during_one_long_turn_are_nobodys_failure(lanes: Lanes) -> None:
    lane = lanes.say(lanes.channel(), "u", "wait 50", "two")
    for restart in range(1, 4):
        lanes.begun(lane, restart, seconds=25)
        lanes.stack.kill("handle")
    with lanes.released():
        lanes.settled(lane)
    assert lanes.turns(lane) == ["committed", "committed"]
    assert lanes.lane(lane, "suspect, attempts") == (False, 0)
    lanes.assert_in_order(lane)


@pytest.mark.parametrize(("bot", "people"), [("asks-and-waits", 30), ("asks-and-waits-in-a-thread", 12)])
def test_people_whose_bot_asks_the_database_and_then_waits_wait_side_by_side(
    lanes: Lanes, bot: str, people: int
) -> None:
    """There are two connections for all: each bot gives its own back before it waits."""
    channel = lanes.channel(bot)
    waiting = [lanes.say(channel, f"u{number}", "hello", woken=False) for number in range(people)]
    lanes.wake(*waiting)
    wait_until(lambda: len([line for line in lanes.done(word="waits") if line.lane in waiting]) == people, 10, "all")
    with lanes.released():
        lanes.settled(*waiting)
    assert [lanes.turns(lane) for lane in waiting] == [["committed"]] * people
    assert [lanes.replies(lane) for lane in waiting] == [["True"]] * people


# ---------------------------------------------------------------- helpers


def hurried(lanes: Lanes, lane: int, *, until: str = "", seconds: float = 30) -> None:
    """Until the lane is settled (or has a message in status ``until``), without its waits between attempts."""
    end = time.monotonic() + seconds * SLACK
    while (until not in lanes.messages(lane)) if until else ("pending" in lanes.messages(lane)):
        assert time.monotonic() < end, f"not settled: {lanes.messages(lane)}"
        if lanes.stack.query(HURRY, lane):
            lanes.wake(lane)
        time.sleep(0.05)


def pause(lanes: Lanes, *of: int) -> None:
    """Their retries shall not disturb the next test."""
    lanes.stack.query("UPDATE conversation SET paused_at = now(), due_at = NULL WHERE id = ANY (%s)", list(of))


def failed_while_paused(lanes: Lanes) -> int:
    return int(lanes.stack.value("SELECT count(*) FROM turn WHERE outcome = 'paused'"))


def stops(lanes: Lanes, channel: int) -> bool:
    query = "SELECT count(*) FROM pause WHERE scope = 'channel' AND target = %s AND since IS NOT NULL"
    return bool(lanes.stack.value(query, str(channel)))
