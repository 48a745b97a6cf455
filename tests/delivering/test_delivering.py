"""Delivering under fire: real senders, killed, stopped, refused and lied to. What people see is read at the double."""

from __future__ import annotations

import collections
import os
import signal
import time

import pytest
import redis
from pytest_httpserver import HTTPServer

from conversations.contracts import Work
from conversations.delivering.bulkhead import CALLS_PER_CHANNEL
from conversations.delivering.sender import READ_AHEAD
from conversations.lanes.lock import key
from tests.kit.doubles import Double
from tests.kit.platforms import generic, telegram_text
from tests.kit.replies import OPEN, Scene, decide, desk, texts, without_repeats
from tests.kit.rows import add_lane, add_replies
from tests.kit.shared import shared
from tests.kit.stack import Channel, Stack, state, wait_until
from tests.kit.stored_files import PNG

pytestmark = [pytest.mark.xdist_group("delivering"), pytest.mark.timeout(400)]


stack = shared()
bare = shared(roles="sweep")  # without senders: each test starts its own, broken ones among them


@pytest.fixture
def broken(bare: Stack, double: Double) -> Scene:
    return Scene(bare, double)


# ---------------------------------------------------------------- files of people


def test_a_persons_file_is_fetched_by_the_senders(stack: Stack, scene: Scene, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(PNG, content_type="text/html")
    channel = scene.generic()
    data = {"message_id": "f1", "user": {"id": "filer"}, "chat": {"id": "filer"}}
    event = {"type": "message.created", "timestamp": "2026-11-22T10:00:00Z", "data": data}
    data["attachments"] = [{"kind": "image", "url": httpserver.url_for("/a")}]  # type: ignore[assignment]
    assert stack.post(channel, *generic(channel, event, "f1")) == 200
    found = "SELECT status, content_type FROM media WHERE channel_id = %s"
    wait_until(lambda: stack.query(found, channel.id) == [("stored", "image/png")], 10, "the file")


# ---------------------------------------------------------------- the five endings


@pytest.mark.slow
def test_a_reply_that_failed_is_tried_again_and_holds_up_those_behind_it(scene: Scene) -> None:
    channel = scene.generic()
    scene.double.script({"do": "502", "text": "r2", "times": 2})
    lane = scene.say(channel, "retry", *texts("r", 4))
    scene.settled(channel)
    assert scene.shown("retry") == texts("r", 4)
    assert scene.replies(lane, "status, attempts") == [("sent", 1), ("sent", 3), ("sent", 1), ("sent", 1)]


@pytest.mark.slow
def test_a_taken_reply_whose_answer_was_cut_shows_once_with_a_key_and_next_to_its_twin_without(scene: Scene) -> None:
    generic, telegram = scene.generic(), scene.telegram()
    scene.double.script(*[{"do": "accept_then_reset", "text": f"x{n}"} for n in (1, 3) for _ in range(2)])
    scene.say(generic, "cut", *texts("x", 4))
    scene.settled(generic)
    scene.double.script(*[{"do": "accept_then_reset", "text": f"x{n}"} for n in (1, 3)])
    scene.say(telegram, 77, *texts("x", 4))
    scene.settled(telegram)
    assert scene.shown("cut") == texts("x", 4)
    assert without_repeats(scene.shown(77)) == texts("x", 4)
    assert scene.shown(77).count("x1") == scene.shown(77).count("x3") == 2


@pytest.mark.slow
def test_a_wait_that_a_platform_asks_for_holds_for_the_whole_bucket_and_burns_no_attempt(scene: Scene) -> None:
    """Also where we count nothing ourselves: the generic channel has no limits of its own."""
    channel = scene.generic()
    scene.double.script({"do": "429", "retry_after": 8})
    lanes = [scene.say(channel, f"busy{n}", "a", "b") for n in range(20)]
    scene.settled(channel, seconds=40)
    calls = [line for line in scene.double.calls() if line["chat"].startswith("busy")]
    refused = [line for line in calls if line["decision"] == "429"]
    assert len(refused) == 1
    told = refused[0]["at"]
    early = [line for line in calls if told + 2 < line["at"] < told + 7.8]
    assert early == []
    assert {attempts for lane in lanes for attempts in scene.replies(lane, "attempts")} == {1}
    assert all(scene.shown(f"busy{n}") == ["a", "b"] for n in range(20))


@pytest.mark.slow
def test_a_call_that_was_admitted_before_a_429_does_not_begin_after_it(broken: Scene) -> None:
    """Between the limiter's word and the call lies a COMMIT: on a busy machine more than a second."""
    channel = broken.generic()
    broken.double.script({"do": "429", "retry_after": 4})
    for n in range(2):
        broken.say(channel, f"admitted{n}", "a")
    with broken.senders("D2=sleep:1.5@2"):
        broken.settled(channel, seconds=40)
    first, *others = [line for line in broken.double.calls() if line["chat"].startswith("admitted")]
    assert first["decision"] == "429"
    assert min(line["at"] for line in others) > first["at"] + 3.8


@pytest.mark.slow
def test_a_person_who_blocked_the_bot_gets_no_bot_replies_until_they_write(scene: Scene) -> None:
    channel = scene.telegram()
    scene.double.script({"do": "403", "chat": "501"})
    lane = scene.say(channel, 501, "one", "two", "three")
    scene.settled(channel)
    assert scene.replies(lane) == ["parked", "parked", "parked"]
    assert scene.calls(501) == ["one"], "what came after the refusal was tried"
    scene.say(channel, 501, "four")
    scene.say(channel, 501, "are you there?", author="person")
    scene.settled(channel)
    assert scene.replies(lane) == ["parked"] * 4 + ["sent"]
    assert scene.calls(501) == ["one", "are you there?"]
    body, headers = telegram_text(channel, 501, 1, "hello again")
    assert scene.stack.post(channel, body, headers) == 200
    wait_until(lambda: "hello again" in scene.shown(501), 20, "the bot answers again")


def test_a_group_that_got_a_new_id_is_written_to_there(scene: Scene) -> None:
    channel = scene.telegram()
    scene.double.script({"do": "upgraded", "chat": "-77", "migrate_to_chat_id": -100777, "times": 0})
    lane = scene.say(channel, -77, *texts("g", 3))
    scene.settled(channel)
    assert scene.shown(-100777) == texts("g", 3)
    assert len(scene.calls(-77)) == 1
    assert scene.replies(lane) == ["sent"] * 3


def test_a_group_that_moves_for_ever_is_given_up(scene: Scene) -> None:
    channel = scene.telegram()
    scene.double.script({"do": "upgraded", "text": "nowhere", "migrate_to_chat_id": -5, "times": 0})
    lane = scene.say(channel, -5, "nowhere")
    scene.settled(channel)
    assert scene.replies(lane, "status, attempts") == [("parked", 10)]


@pytest.mark.slow
def test_a_revoked_token_parks_nothing_shows_one_cause_and_a_new_one_releases_all_in_order(scene: Scene) -> None:
    users = 2_000
    channel = scene.telegram(token="9:old", limits="off")
    scene.double.script({"do": "401", "token": "9:old", "times": 0})
    stack = scene.stack
    stack.query(
        """WITH lanes AS (INSERT INTO conversation (channel_id, chat, "user", last_reply_sequence, send_due_at)
                          SELECT %s, (10000 + n)::text, (10000 + n)::text, 2, now() FROM generate_series(0, %s - 1) n
                          RETURNING id, channel_id)
           INSERT INTO reply (conversation_id, channel_id, sequence, author, body)
           SELECT id, channel_id, s, 'bot', jsonb_build_object('text', 't' || s) FROM lanes, generate_series(1, 2) s""",
        channel.id, users,
    )  # fmt: skip
    its_own = "FROM pause WHERE target = %s"  # a late result of an earlier test may count for another channel
    paused = f"SELECT count(*) {its_own} AND since IS NOT NULL"
    wait_until(lambda: stack.value(paused, str(channel.id)) == 1, 20, "the channel is paused")
    paused_at = time.time()
    wait_until(lambda: any(call["at"] > paused_at + 2 for call in scene.double.calls()), 10, "a probe comes and fails")
    states = "SELECT status, count(*) FROM reply WHERE channel_id = %s GROUP BY 1"
    wait_until(lambda: stack.query(states, channel.id) == [("pending", 2 * users)], 10, "all wait, none is parked")
    causes = stack.query(f"SELECT scope, stops, reason {its_own}", str(channel.id))
    assert [row[:2] for row in causes] == [("channel", "sending")]
    assert "401" in causes[0][2]
    assert stack.value("SELECT max(attempts) FROM reply WHERE channel_id = %s", channel.id) == 0
    stack.manage("set_channel", channel.public_id, "--set", "token=9:new")
    scene.settled(channel, seconds=60)
    assert stack.value("SELECT count(*) FROM reply WHERE channel_id = %s AND status = 'sent'", channel.id) == 2 * users
    shown = collections.defaultdict(list)
    for line in scene.double.accepted():
        shown[line["chat"]].append(line["text"])
    assert all(shown[str(10_000 + n)] == ["t1", "t2"] for n in range(users))
    assert stack.value(f"SELECT count(*) {its_own}", str(channel.id)) == 0


# ---------------------------------------------------------------- one for all, none for others


@pytest.mark.slow
def test_a_platform_that_hangs_holds_up_only_its_own_channel(scene: Scene) -> None:
    hanging, good = scene.generic(), scene.telegram()
    scene.double.script({"do": "hang", "seconds": 300, "text": "stuck", "times": 0})
    for n in range(CALLS_PER_CHANNEL + 30):
        scene.say(hanging, f"h{n}", "stuck")
    wait_until(lambda: sending(scene, hanging) == CALLS_PER_CHANNEL, 15, "calls hang")
    for n in range(20):
        scene.say(good, 900 + n, *texts("q", 3))
    scene.settled(good, seconds=15)
    assert not scene.double.calls("/out")  # a call is written down when it hangs no more
    assert all(scene.shown(900 + n) == texts("q", 3) for n in range(20))
    assert sending(scene, hanging) <= CALLS_PER_CHANNEL, "more calls of one channel than its share"
    scene.stack.query("UPDATE channel SET active = false WHERE id = %s", hanging.id)


def sending(scene: Scene, channel: Channel) -> int:
    count = "SELECT count(*) FROM reply WHERE channel_id = %s AND status = 'sending'"
    return int(scene.stack.value(count, channel.id))


@pytest.mark.slow
def test_a_crowd_waits_for_calls_that_hang_and_each_of_it_is_sent_once(broken: Scene) -> None:
    """Also those who stand so far behind that what was read for them is forgotten."""
    channel = broken.generic()
    broken.double.script({"do": "hang_then_accept", "seconds": 300, "text": "c1", "times": 0})  # tried again: again
    crowd = [f"w{n}" for n in range(CALLS_PER_CHANNEL + READ_AHEAD + 50)]
    for chat in crowd:
        broken.say(channel, chat, *texts("c", 2))
    with broken.senders(""):
        sender = broken.stack.pids("send")
        wait_until(lambda: in_hand(broken, channel) == len(crowd), 30, "the sender has all of them in hand")
        broken.double.release()
        broken.settled(channel)
        assert broken.stack.pids("send") == sender, "it died"
    assert all(broken.shown(chat) == texts("c", 2) for chat in crowd)


def in_hand(scene: Scene, channel: Channel) -> int:
    """Lanes of a channel that a sender holds. A test before may have left locks of its own."""
    with redis.Redis.from_url(scene.stack.servers.redis_url) as client:
        held = {int(key.rpartition(b":")[2]) for key in client.scan_iter("{lanes}:sending:*", count=1000)}
    lanes = scene.stack.query("SELECT id FROM conversation WHERE channel_id = %s", channel.id)
    return sum(id in held for (id,) in lanes)


def test_a_channel_whose_options_cannot_be_read_holds_up_nobody(scene: Scene) -> None:
    bad, unopenable, good = scene.telegram(), scene.telegram(), scene.telegram()
    scene.stack.query('UPDATE channel SET options = \'{"limits": "channel:9999999/1s"}\' WHERE id = %s', bad.id)
    scene.stack.query('UPDATE channel SET sealed = \'{"token": "not sealed by us"}\' WHERE id = %s', unopenable.id)
    scene.say(unopenable, 610, "never")
    scene.say(bad, 611, "with the platform's own limits")
    scene.say(good, 612, "fine")
    scene.settled(bad, good)
    assert (scene.shown(611), scene.shown(612)) == (["with the platform's own limits"], ["fine"])
    scene.stack.query("UPDATE channel SET active = false WHERE id = %s", unopenable.id)


# ---------------------------------------------------------------- waits for statuses


def with_pictures(scene: Scene, channel: Channel, chat: str, *words: str) -> int:
    """Replies at the tail of a lane, due now; those whose word begins with p are pictures."""
    lane = add_lane(scene.stack.ask, channel.id, chat)
    add_replies(scene.stack.ask, lane, words, due=False)
    media = """UPDATE reply SET body = body || '{"media": {"kind": "image", "url": "https://shop.example/p.jpg"}}'
                WHERE conversation_id = %s AND body ->> 'text' LIKE 'p%%'"""
    scene.stack.query(media, lane)
    scene.stack.query("UPDATE conversation SET send_due_at = now() WHERE id = %s", lane)
    return lane


def in_doubt(scene: Scene, lane: int, sequence: int = 1) -> None:
    wait_until(lambda: scene.replies(lane)[sequence - 1] == "unknown", 20, "the reply waits for a status")


def test_where_statuses_come_people_see_each_reply_once_and_in_order(scene: Scene) -> None:
    """Answers are cut; and the platform prepares pictures: a text that it gets meanwhile is on the phone first."""
    channel = scene.whatsapp(wait_for_s="60")
    scene.double.script(*[{"do": "accept_then_reset", "text": f"x{n}"} for n in (1, 3)])
    scene.double.script(*[{"do": "later", "text": f"p{n}", "seconds": 0.3} for n in (1, 3)])
    cut = scene.say(channel, "DE.1", *texts("x", 4))
    pictures = with_pictures(scene, channel, "DE.2", "p1", "t2", "p3", "t4")
    phone: list[str] = []

    def all_arrived() -> bool:
        for sent in scene.double.shown()[len(phone) :]:
            phone.append(sent["text"])
            scene.report(channel, sent, "delivered")
        return len(phone) == 8

    for sequence in (1, 3):
        in_doubt(scene, cut, sequence)
        scene.report(channel, next(one for one in scene.double.accepted() if one["text"] == f"x{sequence}"), "sent")
    wait_until(all_arrived, 30, "all of them are on the phones")
    scene.settled(channel)
    assert scene.shown("DE.1") == texts("x", 4)
    assert [word for word in phone if word[0] != "x"] == ["p1", "t2", "p3", "t4"]
    assert scene.replies(cut, "status, attempts") == scene.replies(pictures, "status, attempts") == [("sent", 1)] * 4
    times = scene.replies(cut, "intent_at, not_before")
    assert all(times[n + 1][0] < times[n][1] for n in (0, 2)), "the time was over before the next reply began"


def test_without_statuses_both_waits_end_by_the_rows_time(scene: Scene) -> None:
    channel = scene.whatsapp(wait_for_s="1")
    scene.double.script({"do": "accept_then_reset", "text": "y1"})
    lost, behind = scene.say(channel, "DE.3", "y1", "y2"), with_pictures(scene, channel, "DE.4", "p", "t")
    in_doubt(scene, lost)
    scene.stack.flush_redis()
    scene.stack.query("UPDATE reply SET not_before = now() WHERE conversation_id = %s AND status = 'unknown'", lost)
    scene.stack.query("UPDATE conversation SET send_due_at = now() WHERE id = %s", lost)
    scene.settled(channel)
    assert scene.shown("DE.3") == ["y1", "y1", "y2"]
    assert scene.shown("DE.4") == ["p", "t"]
    (_, sent), (begun, _) = scene.replies(behind, "intent_at, settled_at")
    assert (begun - sent).total_seconds() >= 1


# ---------------------------------------------------------------- people decide


def test_an_unknown_outcome_is_asked_about_and_what_staff_resend_comes_before_what_waits(scene: Scene) -> None:
    channel = scene.telegram(unknown_policy="ask")
    scene.double.script({"do": "accept_then_reset", "chat": "701"}, {"do": "500", "chat": "702"})
    arrived, lost = (scene.say(channel, chat, "u1", "u2") for chat in (701, 702))
    asked = ["unknown", "pending"] * 2
    wait_until(lambda: scene.replies(arrived) + scene.replies(lost) == asked, 20, "both are asked about")
    time.sleep(3)  # a sweep
    assert scene.calls(701) == scene.calls(702) == ["u1"], "the next one was sent before this one was decided"
    decide(scene, arrived, sent=True)
    decide(scene, lost, sent=False)
    scene.settled(channel)
    assert scene.shown(701) == scene.shown(702) == ["u1", "u2"]


def test_no_send_of_a_bot_reply_starts_after_a_take_over(scene: Scene) -> None:
    channel = scene.telegram()
    scene.double.script({"do": "accept_then_hang", "seconds": 25, "text": "k1"})
    lane = scene.say(channel, 801, *texts("k", 4))
    wait_until(lambda: scene.calls(801) == ["k1"], 15, "the first is in flight")
    desk(scene, f"desk.answer(seen({lane}), anna, 'I am here', taking_over=True)")
    scene.double.release()
    scene.settled(channel)
    assert scene.shown(801) == ["k1", "I am here"]
    assert scene.replies(lane) == ["sent", "cancelled", "cancelled", "cancelled", "sent"]


def test_a_long_answer_arrives_in_parts_in_order(scene: Scene) -> None:
    channel = scene.telegram()
    words = " ".join(f"word{n}" for n in range(1500))
    body, headers = telegram_text(channel, 811, 1, words)
    assert scene.stack.post(channel, body, headers) == 200
    wait_until(lambda: " ".join(scene.shown(811)).split() == words.split(), 20, "all of it, in order")
    assert len(scene.shown(811)) > 2
    assert max(map(len, scene.shown(811))) <= 4096


def test_a_reply_whose_time_passed_is_not_sent_also_when_it_passes_while_it_waits(scene: Scene) -> None:
    channel = scene.generic()
    scene.double.script({"do": "accept_then_hang", "seconds": 25, "text": "v1"})
    lane = scene.say(channel, "late", "v1", "v2", "v3")
    valid = "UPDATE reply SET valid_until = now() + interval '1 s' WHERE conversation_id = %s AND sequence = 2"
    scene.stack.query(valid, lane)
    time.sleep(1.5)
    scene.double.release()
    scene.settled(channel)
    assert scene.replies(lane) == ["sent", "expired", "sent"]
    assert scene.shown("late") == ["v1", "v3"]


def test_a_failure_that_was_told_before_the_reply_was_known_is_for_staff(scene: Scene) -> None:
    channel = scene.generic()
    scene.stack.query("UPDATE channel SET active = false WHERE id = %s", channel.id)
    lane = scene.say(channel, "told", "f1")
    scene.stack.query(
        """INSERT INTO status (channel_id, platform_id, status, error)
           SELECT channel_id, key::text, 'failed', 'no such number' FROM reply WHERE conversation_id = %s""",
        lane,
    )
    scene.stack.query("UPDATE channel SET active = true WHERE id = %s", channel.id)
    scene.settled(channel)
    assert scene.replies(lane, "status, error") == [("failed", "no such number")]


# ---------------------------------------------------------------- senders that die


@pytest.mark.slow
def test_senders_killed_at_every_step_lose_nothing_and_keep_order(broken: Scene) -> None:
    generic, telegram = broken.generic(), broken.telegram()
    for n in range(12):
        broken.say(generic, f"k{n}", *texts("a", 12))
        broken.say(telegram, 2000 + n, *texts("a", 12))
    with broken.senders("D1=kill@9", "D2=kill@13", "D3=kill@17", "D4=kill@11"):
        wait_until(lambda: dying(broken, generic) >= 6, 90, "senders die")
    with broken.senders(""):
        broken.settled(generic, telegram, seconds=60)
    for n in range(12):
        assert broken.shown(f"k{n}") == texts("a", 12)
        assert without_repeats(broken.shown(2000 + n)) == texts("a", 12)
    unsent = "SELECT status FROM reply WHERE status <> 'sent' AND channel_id IN (%s, %s)"
    assert broken.stack.query(unsent, generic.id, telegram.id) == []


def dying(scene: Scene, channel: Channel) -> int:
    """Lives of senders that ended; the sweeper has found some of them. There is always something left to send."""
    if scene.stack.value(f"SELECT count(*) FROM reply WHERE status IN {OPEN} AND channel_id = %s", channel.id) < 20:
        for n in range(12):
            scene.say(channel, f"more{n}", "m")
    alive = len(scene.stack.pids("send"))
    return int(scene.stack.value("SELECT count(*) FROM worker WHERE kind = 'send'")) - alive


@pytest.mark.slow
def test_a_sender_that_slept_between_intent_and_call_does_not_call_any_more(broken: Scene) -> None:
    generic, telegram = broken.generic(), broken.telegram()
    with broken.senders("D2=stop@1") as started:
        lane = broken.say(telegram, 301, *texts("s", 3))
        wait_until(lambda: broken.replies(lane)[0] == "sending", 20, "its intent stands")
        sleeper = broken.stack.pids("send")
        wait_until(lambda: state(sleeper[0]) == "T", 10, "it sleeps")
        with broken.senders(""):
            broken.say(generic, "other", "unharmed")
            broken.settled(telegram, generic)
            assert broken.shown(301) == texts("s", 3)
            os.kill(sleeper[0], signal.SIGCONT)
            time.sleep(4)
            assert broken.calls(301) == texts("s", 3), "it called after its intent was taken from it"
            more = broken.say(telegram, 302, *texts("m", 5))
            broken.settled(telegram)
            assert broken.replies(more) == ["sent"] * 5
        assert started[0].alive()


@pytest.mark.slow
def test_a_sender_that_slept_after_its_call_writes_nothing_over_what_came_after(broken: Scene) -> None:
    telegram, generic = broken.telegram(), broken.generic()
    with broken.senders("D3=stop@1"):
        lanes = [broken.say(telegram, 311, *texts("z", 3))]
        wait_until(lambda: "T" in map(state, broken.stack.pids("send")), 20, "it sleeps")
        sleeper = broken.stack.pids("send")[0]
        lanes.append(broken.say(generic, "z", *texts("z", 3)))
        with broken.senders(""):
            broken.settled(telegram, generic)
            before = [broken.replies(lane, "status, attempts, platform_id") for lane in lanes]
            os.kill(sleeper, signal.SIGCONT)
            time.sleep(4)
            assert [broken.replies(lane, "status, attempts, platform_id") for lane in lanes] == before
    assert without_repeats(broken.shown(311)) == texts("z", 3)
    assert broken.shown(311).count("z1") == 2
    assert broken.shown("z") == texts("z", 3)


@pytest.mark.slow
def test_a_lost_answer_to_commit_is_found_and_given_back(broken: Scene) -> None:
    channel = broken.generic()
    with broken.senders("D4=raise@2"):
        lane = broken.say(channel, "lost", *texts("l", 5))
        broken.settled(channel)
    assert broken.shown("lost") == broken.calls("lost") == texts("l", 5)
    assert broken.replies(lane, "attempts") == [1] * 5


@pytest.mark.slow
def test_results_outlive_a_database_that_is_away_and_nothing_is_sent_twice(broken: Scene) -> None:
    channel = broken.telegram()
    with broken.senders(""):
        broken.double.script({"do": "accept_then_hang", "seconds": 25, "times": 5})
        lanes = [broken.say(channel, 330 + n, *texts("p", 2)) for n in range(5)]
        wait_until(lambda: len(broken.double.calls()) == 5, 20, "five calls hang")
        postgres = broken.stack.servers.postgres
        postgres.stop_immediately()
        broken.double.release()
        time.sleep(6)
        postgres.start()
        broken.settled(channel, seconds=40)
        sender = broken.stack.pids("send")
        assert len(sender) == 1
    assert all(broken.calls(330 + n) == texts("p", 2) for n in range(5))
    assert all(broken.replies(lane, "status, attempts") == [("sent", 1)] * 2 for lane in lanes)


@pytest.mark.slow
def test_a_stopping_sender_leaves_no_claimed_reply(broken: Scene) -> None:
    channel, ask = broken.generic(), broken.telegram(unknown_policy="ask")
    with broken.senders("") as started:
        broken.double.script({"do": "accept_then_hang", "seconds": 28, "times": 2})
        lane, asked = broken.say(channel, "stop", "one", "two"), broken.say(ask, 321, "one", "two")
        wait_until(lambda: len(broken.double.calls()) == 2, 20, "two calls hang")
        os.kill(started[0].pid, signal.SIGTERM)
        started[0].wait(60)
    assert broken.replies(lane) == ["pending", "pending"]
    assert broken.replies(asked) == ["unknown", "pending"]
    with broken.senders(""):
        broken.settled(channel)
    assert broken.shown("stop") == ["one", "two"]


@pytest.mark.slow
def test_a_stopping_sender_releases_lanes_that_only_wait(broken: Scene) -> None:
    """Else nobody could take them until their locks expire."""
    narrow = broken.telegram(limits="channel:1/2s,chat:1000/1s,group:1000/1s")
    with broken.senders("") as started, redis.Redis.from_url(broken.stack.servers.redis_url) as client:
        lanes = [broken.say(narrow, chat, "hello") for chat in (341, 342)]

        def one_waits() -> bool:
            states = [(bool(client.exists(key(Work.SEND, lane))), *broken.replies(lane)) for lane in lanes]
            return sorted(states) == [(False, "sent"), (True, "pending")]

        wait_until(one_waits, 20, "one is sent, the other waits")
        os.kill(started[0].pid, signal.SIGTERM)
        started[0].wait(60)
        assert not any(client.exists(key(Work.SEND, lane)) for lane in lanes)
    with broken.senders(""):
        broken.settled(narrow)
    assert [broken.shown(chat) for chat in (341, 342)] == [["hello"], ["hello"]]
