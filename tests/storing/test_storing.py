"""Storing: everything that is answered with success is there once, in order, whatever meets or breaks."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from django.test import Client

from conversations import registry, runtime
from conversations.contracts import ChannelConfig, Parsed, StatusUpdate, Unusable, WebhookRequest
from conversations.errors import Busy, NotStored
from conversations.postgres import room
from conversations.reports import statuses
from conversations.storing import intake
from conversations.storing.rows import ParsedRequest
from conversations.storing.store_stream import STORE
from conversations.waking import wake
from tests.chaos.proxy import UP, Link, at
from tests.kit.entries import accept, entry, lane, make_channel, new_user, texts, told
from tests.kit.platforms import GENERIC_SECRET, generic_text, telegram_text
from tests.kit.stack import ROOT, Channel, Stack, wait_until

pytestmark = [pytest.mark.xdist_group("storing"), pytest.mark.timeout(400)]
NOWHERE = "http://127.0.0.1:9/"  # replies cannot be sent


@pytest.fixture
def channel(own_database: str) -> ChannelConfig:
    return make_channel()


def rows(query: str, **values: Any) -> list[tuple[Any, ...]]:
    return runtime.read(query, values or ())


# ---------------------------------------------------------------- one request


def test_a_bad_item_is_set_aside_with_its_bytes_and_the_others_are_stored_in_order(channel: ChannelConfig) -> None:
    user = new_user()
    things = [entry(user, "1"), entry(user, "too great", order_key=2**70), entry(user, "2"), entry(new_user(), "x")]
    accept(channel, *things, body=b"\x00 all of it")
    assert texts(user) == ["1", "2"]
    refused = (1, b"\x00 all of it", "the database refused it (22003)")
    assert rows("SELECT entry, body, reason FROM quarantine") == [refused]
    assert rows("SELECT stored, duplicates, quarantined, noted FROM receipt") == [(3, 0, 1, 0)]
    assert rows("SELECT body FROM receipt_body") == [(b"\x00 all of it",)]


def test_a_request_of_many_batches_has_one_receipt_with_its_counts_and_one_body(channel: ChannelConfig) -> None:
    users = [new_user() for _ in range(3)]
    things: list[Parsed] = [entry(users[n % 3], str(n)) for n in range(700)]
    things[500] = Unusable(reason="no \0 good", raw=b"its own")
    accept(channel, *things)
    assert rows("SELECT stored, duplicates, quarantined FROM receipt") == [(699, 0, 1)]
    assert len(rows("SELECT 1 FROM receipt_body")) == 1
    assert rows("SELECT entry, body FROM quarantine") == [(500, b"its own")]
    for place, user in enumerate(users):
        assert texts(user) == [str(n) for n in range(place, 700, 3) if n != 500]
    things[500] = StatusUpdate(platform_id="p", status="read")
    accept(channel, *things)
    assert rows("SELECT stored, duplicates, noted FROM receipt ORDER BY id DESC LIMIT 1") == [(0, 699, 1)]


def test_a_repeat_keeps_no_second_body(channel: ChannelConfig) -> None:
    user = new_user()
    for _ in range(3):
        accept(channel, entry(user, "once"))
    assert texts(user) == ["once"]
    assert rows("SELECT stored, duplicates FROM receipt ORDER BY id") == [(1, 0), (0, 1), (0, 1)]
    assert len(rows("SELECT 1 FROM receipt_body")) == 1


@pytest.mark.parametrize("held", [False, True], ids=["free", "held for a while"])
def test_copies_at_once_are_written_once_and_counted_each(channel: ChannelConfig, settings: Any, held: bool) -> None:
    user, group = new_user(), new_user()
    accept(channel, entry(user, "before"))
    together = [
        [entry(user, "one"), entry(user, "two")],
        [entry(user, "two"), entry(user, "three"), entry(user, "one")],
        [entry(user, "three")],
        [entry(user, "before"), entry(user, "before")],
        [entry(group, "in a group", sender={"user": "anna"}), entry(group, "in a group", sender={"user": "bob"})],
    ]
    request = WebhookRequest(method="POST", url="https://x", headers={}, query={}, body=b"bytes")
    with psycopg.connect(settings.DATABASE_URL) as other:
        if held:
            other.execute("SELECT FROM conversation WHERE chat = %s FOR UPDATE", (user,))
        release = threading.Timer(0.3, other.rollback)
        release.start()
        intake.store([ParsedRequest(channel, things, request) for things in together])
        release.join()
    assert texts(user) == ["before", "one", "two", "three"]
    assert [message.sequence for message in told(user)] == [1, 2, 3, 4]
    assert rows("SELECT text FROM message WHERE text LIKE 'in a%%'") == [("in a group",)]
    assert rows("SELECT stored, duplicates, quarantined FROM receipt ORDER BY id")[1:] == [
        (2, 0, 0), (1, 2, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0),
    ]  # fmt: skip
    assert len(rows("SELECT 1 FROM receipt_body")) == 4


def test_two_conflicts_in_one_request_are_set_aside_once_each(channel: ChannelConfig) -> None:
    user = new_user()
    accept(channel, entry(user, "first", key="m:1"))
    accept(channel, entry(user, "other", key="m:1"), entry(user, "other", key="m:1"), entry(user, "first", key="m:1"))
    assert texts(user) == ["first"]
    assert rows("SELECT entry, seen FROM quarantine ORDER BY entry") == [(0, 1), (1, 1)]


def test_of_a_batch_each_item_is_set_aside_with_its_own_bytes_only(channel: ChannelConfig) -> None:
    """With the whole body for each, a batch of 1 MB would fill 10 GB."""
    user = new_user()
    accept(channel, entry(user, "first", key="m:1"))
    bad = [entry(user, "other", key="m:1"), entry("x" * 1001, "long id"), entry(user, "too great", order_key=2**70)]
    accept(channel, *[msgspec.structs.replace(each, raw=each.text.encode()) for each in bad], body=b"all of it")
    assert sorted(rows("SELECT body FROM quarantine")) == [(b"long id",), (b"other",), (b"too great",)]


def test_the_same_identity_with_other_content_is_kept_and_shown(channel: ChannelConfig) -> None:
    user = new_user()
    accept(channel, entry(user, "first", key="m:1"))
    accept(channel, entry(user, "other", key="m:1"), body=b"other bytes")
    accept(channel, entry(user, "other", key="m:1"), body=b"other bytes")
    assert texts(user) == ["first"]
    assert [(bytes(body), seen) for body, seen in rows("SELECT body, seen FROM quarantine")] == [(b"other bytes", 2)]
    assert rows("SELECT quarantined FROM receipt ORDER BY id") == [(0,), (1,), (1,)]


def test_a_conflict_within_one_request_is_no_duplicate(channel: ChannelConfig) -> None:
    user = new_user()
    accept(channel, entry(user, "first", key="m:1"), entry(user, "other", key="m:1"), entry(user, "first", key="m:1"))
    assert texts(user) == ["first"]
    ((place, reason),) = rows("SELECT entry, reason FROM quarantine")
    assert (place, reason.partition(":")[0]) == (1, "conflict")


def test_what_postgres_cannot_hold_is_replaced_in_text_and_refused_in_ids(channel: ChannelConfig) -> None:
    user = new_user()
    bad = "a\0b\ud800c"
    accept(channel,
           entry(user, bad, key="m:1", sender={"name": bad, "email": bad}, address={bad: bad},
                 data={"extra": {bad: [bad]}}), entry(user, "id", key="m:\0"),
           entry(user, "alias", sender={"aliases": ("\udfff",)}), entry("x" * 1_001, "long"), Unusable(reason=bad),
           StatusUpdate(platform_id=bad, status="failed", error=bad))  # fmt: skip
    assert texts(user) == ["a\ufffdb\ufffdc"]
    assert rows("SELECT payload ->> 'replaced', payload #>> '{data,extra}' FROM message")[0][0] == "true"
    assert rows("SELECT name, email FROM contact") == [("a\ufffdb\ufffdc",) * 2]
    assert [place for (place,) in rows("SELECT entry FROM quarantine ORDER BY entry")] == [1, 2, 3, 4]
    assert rows("SELECT status, error FROM status") == [("failed", "a\ufffdb\ufffdc")]


def test_a_process_whose_first_request_is_unusable_stores_it(channel: ChannelConfig) -> None:
    accept(channel, Unusable(reason="no JSON", raw=b"{"))
    assert rows("SELECT reason FROM quarantine") == [("no JSON",)]


# ---------------------------------------------------------------- people and their ids


def test_contacts_are_written_only_when_something_changed(channel: ChannelConfig) -> None:
    user = new_user()

    def say(text: str, **sender: str) -> tuple[Any, ...]:
        accept(channel, entry(user, text, sender=sender))
        return rows('SELECT xmin::text, name, phone, language FROM contact WHERE "user" = %(user)s', user=user)[0]

    first = say("1", name="Ada", phone="+49 (30) 12", language="de")
    assert first[1:] == ("Ada", "493012", "de")
    STORE._contacts.clear()  # as another process, which has not seen the person
    assert say("2", name="Ada", phone="4930-12", language="de") == first
    assert say("3", name="") == first  # a webhook that says less takes nothing away
    assert say("4", name="Ada L")[1:] == ("Ada L", "493012", "de")


def test_a_busy_contact_is_up_to_date_with_the_persons_next_message(channel: ChannelConfig, own_database: str) -> None:
    user = new_user()
    accept(channel, entry(user, "1", sender={"name": "Ada"}))
    with psycopg.connect(own_database) as other:
        other.execute('SELECT FROM contact WHERE "user" = %s FOR UPDATE', (user,))
        accept(channel, entry(user, "2", sender={"name": "Ada L"}))
    assert rows("SELECT name FROM contact") == [("Ada",)]
    accept(channel, entry(user, "3", sender={"name": "Ada L"}))
    assert rows("SELECT name FROM contact") == [("Ada L",)]


def test_a_telegram_group_that_migrates_keeps_its_lanes_and_their_state(own_database: str) -> None:
    channel = make_channel("telegram")

    def post(chat: int, user: int, message: int, **content: Any) -> None:
        person = {"id": user, "is_bot": False, "first_name": "A"}
        place = {"id": chat, "type": "supergroup" if chat < -1000 else "group", "title": "G"}
        content |= {"message_id": message, "from": person, "chat": place, "date": 1}
        update = {"update_id": message, "message": content}
        request = WebhookRequest(method="POST", url="", headers={}, query={}, body=json.dumps(update).encode())
        intake.accept(channel, registry.adapter("telegram").parse(channel, request), request)

    post(-5, 1, 1, text="/ada before")
    post(-5, 2, 2, text="/bob before")
    lanes = dict(rows('SELECT "user", id FROM conversation'))
    runtime.execute("INSERT INTO conversation_state (conversation_id, state) SELECT id, '{\"n\": 1}' FROM conversation")
    accept(channel, *[])  # nothing but a receipt
    post(-5, 1, 3, migrate_to_chat_id=-1005)
    post(-1005, 1, 1, migrate_from_chat_id=-5)
    post(-1005, 2, 2, text="/bob after")
    post(-1005, 1, 3, text="/ada after")
    post(-1005, 3, 4, text="/cyd is new")
    kept = dict(rows('SELECT "user", id FROM conversation'))
    assert {user: kept[user] for user in lanes} == lanes
    assert set(kept) == {"1", "2", "3"}
    said = rows("SELECT text FROM message WHERE kind = 'message' ORDER BY id")
    assert [text for (text,) in said] == ["/ada before", "/bob before", "/bob after", "/ada after", "/cyd is new"]
    assert rows("SELECT count(*) FROM conversation_state") == [(2,)]
    assert rows("SELECT DISTINCT address ->> 'chat' FROM conversation WHERE \"user\" = '1'") == [("-1005",)]


def test_a_lane_that_went_away_or_got_another_id_is_found_again(channel: ChannelConfig) -> None:
    user = new_user()
    accept(channel, entry(user, "1"))
    runtime.execute("INSERT INTO alias (channel_id, of, value, known_as) VALUES (%(c)s, 'chat', %(u)s, 'elsewhere')",
                     {"c": channel.id, "u": user})  # fmt: skip
    accept(channel, entry(user, "2"))
    assert texts("elsewhere") == ["2"]


# ---------------------------------------------------------------- statuses


def reply(user: str, platform_id: str, status: str = "sent") -> int:
    found = rows(
        """INSERT INTO reply (conversation_id, channel_id, sequence, body, status, platform_id, intent_at)
           SELECT id, channel_id, last_reply_sequence + 1, '{}', %(status)s, %(platform_id)s, now()
             FROM conversation WHERE chat = %(user)s
           RETURNING id""",
        user=user, status=status, platform_id=platform_id,
    )  # fmt: skip
    count = "UPDATE conversation SET last_reply_sequence = last_reply_sequence + 1 WHERE chat = %(user)s"
    runtime.execute(count, {"user": user})
    return int(found[0][0])


def said_of(reply_id: int) -> tuple[Any, ...]:
    return rows("SELECT status, delivered, error FROM reply WHERE id = %(id)s", id=reply_id)[0]


def test_statuses_only_upgrade_their_reply(channel: ChannelConfig) -> None:
    user = new_user()
    accept(channel, entry(user, "1"))
    first, second, third = reply(user, "p1"), reply(user, "p2"), reply(user, "p3", "unknown")
    for word in ("read", "delivered", "sent", "delivered"):
        accept(channel, StatusUpdate(platform_id="p1", status=word))
    assert said_of(first) == ("sent", "read", "")
    accept(channel, StatusUpdate(platform_id="p2", status="failed", error="131047"))
    accept(channel, StatusUpdate(platform_id="p2", status="delivered"))
    assert said_of(second) == ("sent", "delivered", "")  # it arrived after all
    accept(channel, StatusUpdate(platform_id="p2", status="failed", error="131047"))
    accept(channel, StatusUpdate(platform_id="p1", status="failed", error="131047"))
    assert (said_of(second), said_of(first)) == (("sent", "delivered", ""), ("sent", "read", ""))
    accept(channel, StatusUpdate(platform_id="p3", status="sent"))
    assert said_of(third)[0] == "sent"  # it names the reply, so it was taken
    assert lane(user, "send_due_at <= now()") is True


@pytest.mark.parametrize("told", list(itertools.permutations(("sent", "failed", "delivered"))))
def test_what_statuses_make_of_a_reply_is_the_same_in_any_order(channel: ChannelConfig, told: tuple[str, ...]) -> None:
    user = new_user()
    accept(channel, entry(user, "1"))
    ours = reply(user, "p")
    for word in told:
        accept(channel, StatusUpdate(platform_id="p", status=word, error="131026" if word == "failed" else ""))
    assert said_of(ours) == ("sent", "delivered", "")


@pytest.mark.parametrize("outcome", ["unknown", "pending"])
def test_a_status_names_a_reply_of_unknown_outcome_by_its_key(
    channel: ChannelConfig, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    woken: list[tuple[list[int], int]] = []
    monkeypatch.setattr(wake, "send", lambda ids, tenant: woken.append((ids, tenant)))
    user = new_user()
    accept(channel, entry(user, "1"))
    ours, other = reply(user, "", outcome), reply(user, "", "unknown")
    ((key,),) = rows("SELECT key FROM reply WHERE id = %(id)s", id=ours)
    if outcome == "pending":  # the first attempt failed, and the reply is to be sent again
        accept(channel, StatusUpdate(platform_id="w0", key=str(key), status="failed", error="no"))
        assert rows("SELECT status, settled_at FROM reply WHERE id = %(id)s", id=ours) == [("pending", None)]
    accept(channel, StatusUpdate(platform_id="w1", key=str(key), status="delivered"))
    accept(channel, StatusUpdate(platform_id="w2", key="no key of ours", status="delivered"))
    assert (said_of(ours), said_of(other)[0]) == (("sent", "delivered", ""), "unknown")
    accept(channel, StatusUpdate(platform_id="w1", status="read"))  # by the id that the first one told
    assert said_of(ours)[1] == "read"
    assert lane(user, "send_due_at <= now()") is True
    wait_until(lambda: bool(woken), 5, "a sender is woken")
    assert woken == [([lane(user, "id")], channel.tenant_id)], "once: the second status freed nothing"


def test_a_status_of_a_settled_reply_makes_no_lane_due(channel: ChannelConfig) -> None:
    user = new_user()
    accept(channel, entry(user, "1"))
    reply(user, "q1"), reply(user, "q2", "unknown")
    accept(channel, StatusUpdate(platform_id="q1", status="read"))
    assert lane(user, "send_due_at") is None  # staff decide on the unknown one
    accept(channel, StatusUpdate(platform_id="q2", status="sent"))
    assert lane(user, "send_due_at <= now()") is True


def test_a_status_that_comes_while_its_reply_is_being_written_is_joined_soon(
    channel: ChannelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "AGAIN_SECONDS", 1.0)
    user = new_user()
    accept(channel, entry(user, "1"))
    accept(channel, StatusUpdate(platform_id="early", status="failed", error="no"))
    assert rows("SELECT status FROM status") == [("failed",)]
    early = reply(user, "early")
    wait_until(lambda: said_of(early)[0] == "failed", 5, "the status is joined")


def test_statuses_are_stored_at_once_a_held_lane_holds_up_its_own(channel: ChannelConfig, own_database: str) -> None:
    users = [new_user() for _ in range(2)]
    for user in users:
        accept(channel, entry(user, "1"))
        for number in range(60):
            reply(user, f"{user}-{number}")
    with psycopg.connect(own_database) as other:
        other.execute("SELECT FROM conversation WHERE chat = %s FOR UPDATE", (users[0],))
        status = StatusUpdate(platform_id=f"{users[0]}-1", status="read")
        stuck = threading.Thread(target=refused, args=(channel, status))
        stuck.start()
        time.sleep(0.05)
        began = time.monotonic()
        accept(channel, *[StatusUpdate(platform_id=f"{users[1]}-{n}", status="read") for n in range(60)])
        accept(channel, entry(users[1], "2"))
        assert time.monotonic() - began < 2
        stuck.join()
    assert rows("SELECT count(*) FROM reply WHERE delivered = 'read'") == [(60,)]
    accept(channel, StatusUpdate(platform_id=f"{users[0]}-1", status="read"))
    assert rows("SELECT count(*) FROM reply WHERE delivered = 'read'") == [(61,)]


def refused(channel: ChannelConfig, *things: Parsed, body: bytes = b"the body") -> None:
    with pytest.raises(NotStored):
        accept(channel, *things, body=body)


# ---------------------------------------------------------------- when it cannot be stored now


@pytest.fixture
def cut(own_database: str, settings: Any) -> Iterator[Link]:
    """What lies between the core and Postgres."""
    with contextlib.closing(Link.to(own_database)) as link:
        settings.DATABASE_URL = at(own_database, link.port)
        runtime.begin()  # connect again
        yield link


def test_after_a_commit_whose_outcome_is_unknown_the_repeat_is_a_duplicate(channel: ChannelConfig, cut: Link) -> None:
    user = new_user()
    accept(channel, entry(user, "1"))
    cut.arm("commit_answer", times=1)
    with pytest.raises(NotStored):
        accept(channel, entry(user, "2"))
    assert texts(user) == ["1", "2"]  # it was written; nobody was told
    accept(channel, entry(user, "2"))
    accept(channel, entry(user, "3"))
    assert [(message.sequence, message.text) for message in told(user)] == [(1, "1"), (2, "2"), (3, "3")]


def hears() -> bool:
    """Return False while the committer refuses everything, because its database is silent."""
    try:
        intake.writer().refuse_if_silent()
    except NotStored:
        return False
    return True


def test_a_core_that_freezes_while_it_sends_a_large_body_is_ended_by_the_server(
    own_database: str, channel: ChannelConfig, cut: Link
) -> None:
    """It is not idle in its transaction: the server waits for the rest of a statement, with the lanes locked."""
    user = new_user()
    accept(channel, entry(user, "1"))
    cut.throttle(300_000, UP)  # it does not come to its end
    with psycopg.connect(own_database, autocommit=True) as other, ThreadPoolExecutor(1) as pool:

        def free() -> bool:
            found = other.execute("SELECT FROM conversation WHERE chat = %s FOR UPDATE SKIP LOCKED", (user,)).fetchall()
            return bool(found)

        def waits() -> bool:
            query = """SELECT FROM pg_stat_activity WHERE datname = current_database()
                          AND state = 'active' AND wait_event = 'ClientRead'"""
            return bool(other.execute(query).fetchall())

        if other.info.server_version < 170000:
            pytest.skip("this server has no limit for a whole transaction")
        frozen = pool.submit(refused, channel, entry(user, "2"), body=b"x" * 4_000_000)
        wait_until(lambda: waits() and not free(), 4, "the server waits for the rest, with the lane locked")
        wait_until(free, 8, "the server ends the frozen one")
        cut.heal()
        frozen.result()
    # The committer may learn of its lost connection later than its caller gave up: until then it refuses.
    wait_until(hears, 5, "the committer hears of its database")
    accept(channel, entry(user, "2"))
    assert texts(user) == ["1", "2"]


def test_a_full_queue_answers_503_with_retry_after(channel: ChannelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from conversations.models import Channel as Row

    row = Row.objects.get(pk=channel.id)
    row.set_credentials({"secret": GENERIC_SECRET})
    row.save()
    runtime.begin()
    where = Channel(id=row.pk, public_id=row.public_id, webhook_path=row.webhook_path, platform="generic",
                    secrets={"secret": GENERIC_SECRET})  # fmt: skip

    def post() -> Any:
        body, headers = generic_text(where, "u", "m1", "hello")
        named = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        return Client().post(where.webhook_path, body, content_type="application/json", **named)

    assert post().status_code == 200
    monkeypatch.setattr(room, "QUEUED_ITEMS", 0)
    monkeypatch.setattr(registry, "CHANNEL_SECONDS", 60.0)
    refused = post()
    assert (refused.status_code, refused["Retry-After"]) == (503, "2")


def test_full_batches_on_three_connections_refuse_no_other_tenant(channel: ChannelConfig) -> None:
    other, over, answers = make_channel(tenant_name="Neighbour"), threading.Event(), []
    batch = [entry(f"crowd{n % 1000}", str(n)) for n in range(10_000)]

    def post_batches() -> None:
        while not over.is_set():
            try:
                accept(channel, *batch)
                answers.append("stored")
            except (Busy, NotStored) as error:  # at the deadline: it comes again, and finds duplicates
                answers.append(type(error).__name__)

    with ThreadPoolExecutor(3) as pool:
        crowds = [pool.submit(post_batches) for _ in range(3)]
        try:
            wait_until(lambda: len(rows("SELECT FROM message")) > 500, 10, "the batches are being stored")
            for n in range(12):
                accept(other, entry("one", str(n)))
        finally:
            over.set()
        for crowd in crowds:
            crowd.result()
    assert texts("one") == [str(n) for n in range(12)]
    assert "Busy" not in answers


def test_a_batch_with_shuffled_numbers_leaves_no_holes(own_database: str) -> None:
    """By slices, a number that comes with a later one would look like a gap, or like a jump."""
    channel, user = make_channel(gap_timeout_s=0), new_user()
    numbers = list(range(1, 2001))
    random.Random(4).shuffle(numbers)
    things = [entry(user, str(n), sequence=n) for n in numbers]
    place = numbers.index(700)
    accept(channel, *things[: place + 1], entry(user, "behind it"), *things[place + 1 :])
    behind = max(numbers[: place + 1])
    assert texts(user) == [*map(str, range(1, behind + 1)), "behind it", *map(str, range(behind + 1, 2001))]
    assert rows("SELECT FROM message WHERE late OR status = 'missing'") == []


def test_of_people_who_share_a_lane_one_without_a_number_stays_where_they_spoke(own_database: str) -> None:
    channel = make_channel(group_lane="chat")
    said = [entry("anna", "1", chat="room", group=True, sequence=1), entry("ben", "behind it", chat="room", group=True),
            entry("anna", "2", chat="room", group=True, sequence=2)]  # fmt: skip
    accept(channel, *said)
    assert texts("room") == ["1", "behind it", "2"]


# ---------------------------------------------------------------- many at once, on real processes


@pytest.mark.slow
def test_numbers_are_dense_and_in_order_of_acceptance_for_10_000_messages_of_50_users_by_32_threads(
    own_database: str, process_env: dict[str, str]
) -> None:
    channel = make_channel()
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = rows(deadlocks)
    command = [sys.executable, "-m", "tests.kit.flood", str(channel.id), "16", "5000", "50"]
    env = {**process_env, "DJANGO_SETTINGS_MODULE": "botproject.settings", "PYTHONPATH": str(ROOT)}
    floods = [subprocess.Popen([*command, name], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) for name in "ab"]
    said = [flood.communicate(timeout=100)[0].splitlines()[-1] for flood in floods]
    accepted = [line for lines in map(json.loads, said) for line in lines]
    assert len(accepted) == 32 * (5000 // 16)
    time_of = {text: (began, ended) for _, text, began, ended in accepted}
    stored = rows(
        """SELECT c.chat, array_agg(m.sequence ORDER BY m.sequence), array_agg(m.text ORDER BY m.sequence),
                  c.last_sequence
             FROM message m JOIN conversation c ON c.id = m.conversation_id GROUP BY c.id"""
    )
    assert len(stored) == 50
    assert sum(len(numbers) for _, numbers, _, _ in stored) == len(accepted)
    for _, numbers, said, last in stored:
        assert numbers == list(range(1, last + 1))
        soonest = float("inf")
        for began, ended in (time_of[text] for text in reversed(said)):
            assert soonest >= began, "a later number was accepted before this one was given to the core"
            soonest = min(soonest, ended)
    assert rows(deadlocks) == before


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(roles="", webs=2) as running:
        yield running


@pytest.fixture(scope="module")
def telegram(stack: Stack) -> Channel:
    return stack.add_channel("telegram", token="1:a", secret_token="s3cret-Token-0123456789", settle_ms="300")


@pytest.fixture(scope="module")
def generic(stack: Stack) -> Channel:
    return stack.add_channel("generic", secret=GENERIC_SECRET, outbound_url=NOWHERE, gap_timeout_s="1")


@pytest.fixture(scope="module")
def blocking(stack: Stack) -> Channel:
    ours = {"secret": GENERIC_SECRET, "outbound_url": NOWHERE}
    return stack.add_channel("generic", **ours, gap_timeout_s="1", gap_policy="block")


@pytest.mark.slow
def test_the_same_webhook_five_times_at_once_through_two_processes_is_stored_once(
    stack: Stack, generic: Channel
) -> None:
    with ThreadPoolExecutor(25) as pool:
        jobs = []
        for number in range(60):
            body, headers = generic_text(generic, f"five{number % 20}", f"five-{number}", str(number))
            jobs += [pool.submit(stack.post, generic, body, headers, copy % 2) for copy in range(5)]
        assert {job.result() for job in jobs} == {200}
    assert stack.value("SELECT count(*) FROM message WHERE text ~ '^[0-9]+$'") == 60
    assert stack.value("SELECT sum(duplicates) FROM receipt") == 240
    assert stack.value("SELECT count(*) FROM receipt_body") == 60
    assert stack.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


FREEZE = """
import os, signal, sys, psycopg
from conversations.postgres.database import LIMITS
connection = psycopg.connect(sys.argv[1], autocommit=True)
connection.execute("BEGIN")
connection.execute(LIMITS)
connection.execute("SELECT FROM conversation WHERE chat LIKE 'five%' FOR NO KEY UPDATE")
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_frozen_process_that_holds_lanes_holds_up_nobody_else_and_is_ended_by_the_server(
    stack: Stack, generic: Channel
) -> None:
    for number in range(10):
        assert post_timed(stack, generic, f"five{number}", f"before-{number}", 0)[0] == 200
    command = [sys.executable, "-c", FREEZE, stack.servers.database_url]
    frozen = subprocess.Popen(command, cwd=ROOT, env=stack.env, stdout=subprocess.PIPE)
    try:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == b"held\n"
        with ThreadPoolExecutor(30) as pool:
            held = [pool.submit(post_timed, stack, generic, f"five{n}", f"held-{n}", n % 2) for n in range(10)]
            free = [pool.submit(post_timed, stack, generic, f"free{n}", f"free-{n}", n % 2) for n in range(20)]
            assert {job.result()[0] for job in free} == {200}
            assert {job.result()[0] for job in held} <= {200, 503}  # the server ends the frozen one at their deadline
            assert max(job.result()[1] for job in free) < min(job.result()[1] for job in held)
    finally:
        frozen.kill()
        frozen.wait()


def test_a_lane_that_stays_held_refuses_only_its_own_and_the_process_lives_on(stack: Stack, generic: Channel) -> None:
    assert post_timed(stack, generic, "five1", "before", 0)[0] == 200
    alive = web_pids(stack)
    with psycopg.connect(stack.servers.database_url) as other:
        other.execute("SELECT FROM conversation WHERE chat = 'five1' FOR UPDATE")
        with ThreadPoolExecutor(4) as pool:
            held = [pool.submit(post_timed, stack, generic, "five1", f"stays-{n}", n) for n in range(2)]
            for number in range(20):
                assert post_timed(stack, generic, f"free{number}", f"meanwhile-{number}", number % 2)[0] == 200
            assert {job.result()[0] for job in held} == {503}
    assert post_timed(stack, generic, "five1", "stays-0", 0)[0] == 200
    assert web_pids(stack) == alive


@pytest.mark.slow
def test_without_redis_webhooks_are_answered_and_windows_and_gaps_end_later(
    stack: Stack, telegram: Channel, generic: Channel, blocking: Channel
) -> None:
    """Stopped: it takes connections and says nothing. Killed: it refuses. Afterwards the sweeper finds it all."""
    valkey = stack.servers.valkey
    assert valkey is not None
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        for message in (3, 1, 2):
            post_quickly(stack, telegram, *telegram_text(telegram, 77, message, str(message)))
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    valkey.kill()
    for channel, user in ((generic, "goes"), (blocking, "stops")):
        for number in (1, 2, 5):
            post_quickly(stack, channel, *generic_text(channel, user, f"{user}-{number}", str(number), seq=number))
    assert handled(stack, "77") == []
    valkey.start()
    stack.start_workers("handle,sweep")
    wait_until(lambda: handled(stack, "77") == ["1", "2", "3"], 25, "the window ends in the platform's order")
    wait_until(lambda: handled(stack, "goes") == ["1", "2", "", "5"], 10, "the gap ends and the bot goes on")
    wait_until(lambda: handled(stack, "stops") == ["1", "2", ""], 10, "the gap ends and the lane stops at it")
    stopped = stack.query("SELECT blocked, due_at, next_sequence FROM conversation WHERE chat = 'stops'")
    assert stopped == [(True, None, 3)]
    assert stack.post(generic, *generic_text(generic, "goes", "goes-4", "4", seq=4)) == 200
    wait_until(lambda: handled(stack, "goes")[-1] == "4", 5, "a late one is handled, too")
    note = stack.value("SELECT note FROM message WHERE text = '4' AND late")
    assert note == "late: it belongs to the hole at number 3"
    # With workers there, the message is held for its window, and then goes on.
    body, headers = telegram_text(telegram, 78, 1, "soon")
    began = time.monotonic()
    assert stack.post(telegram, body, headers) == 200
    wait_until(lambda: handled(stack, "78") == ["soon"], 5, "the holder releases")
    assert time.monotonic() - began > 0.3


def handled(stack: Stack, user: str) -> list[str]:
    found = stack.query("""SELECT m.text FROM message m JOIN conversation c ON c.id = m.conversation_id
            WHERE c.chat = %s AND m.status IN ('handled', 'missing') ORDER BY m.sequence""", user)  # fmt: skip
    return [text for (text,) in found]


def post_quickly(stack: Stack, channel: Channel, body: bytes, headers: dict[str, str]) -> None:
    began = time.monotonic()
    assert stack.post(channel, body, headers) == 200
    assert time.monotonic() - began < 2.5


def post_timed(stack: Stack, channel: Channel, user: str, message: str, web: int) -> tuple[int, float]:
    body, headers = generic_text(channel, user, message, message)
    began = time.monotonic()
    return stack.post(channel, body, headers, web), time.monotonic() - began


def web_pids(stack: Stack) -> list[int]:
    """The processes that serve: children of the two that were started."""
    roots = {process.pid for process in stack._workers[:2]}
    stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    pids = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat")]
    return sorted(pid for pid, stat in zip(pids, stats, strict=False) if int(stat[1]) in roots)
