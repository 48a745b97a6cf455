"""WhatsApp's webhooks through the view into Postgres: order, once, and one person under many ids."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import hmac
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels_ingest.webhooks import exchange
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations import registry, runtime
from conversations.contracts import WebhookRequest
from conversations.models import Audit, Channel, Conversation, Reply
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.storing.late_replies import LATE, LateItem
from conversations.storing.rows import ParsedRequest, StoreItem, make_items
from conversations.storing.store_stream import StoreStream
from tests.adapters.test_meta import ANYTHING, WHOLE, places, put
from tests.kit.fixtures import incoming, request
from tests.kit.rows import add_messages, add_replies
from tests.kit.stack import wait_until

SECRET = "0123456789abcdef0123456789abcdef"
NUMBER = "555000111222333"


def add_shop(name: str) -> Channel:
    pairs = (f"app_secret={SECRET}", "verify_token=our words", "access_token=EAA", f"phone_number_id={NUMBER}")
    out = io.StringIO()
    call_command("add_channel", "whatsapp", "--name", name, *(f"--set={pair}" for pair in pairs), stdout=out)
    registry.forget_channels()
    return Channel.objects.get(pk=json.loads(out.getvalue())["id"])


@pytest.fixture
def shop(own_database: str, monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.setattr(exchange, "failed_attempts", FailedAttempts())
    return add_shop("shop")


def text(number: int, words: str, **ids: str) -> dict[str, Any]:
    return {"id": f"wamid.{number}", "timestamp": str(1790000000 + number), "type": "text", "text": {"body": words},
            **ids}  # fmt: skip


def body(*messages: dict[str, Any], statuses: Sequence[dict[str, Any]] = ()) -> bytes:
    metadata = {"display_phone_number": "4930", "phone_number_id": NUMBER}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "messages": messages, "statuses": statuses}
    entry = {"id": "777", "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def post(channel: Channel, *messages: dict[str, Any], secret: str = SECRET, **lists: Any) -> int:
    return post_raw(channel, body(*messages, **lists), secret)


def post_raw(channel: Channel, raw: bytes, secret: str = SECRET) -> int:
    signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature}
    return Client().post(channel.webhook_path, raw, content_type="application/json", headers=headers).status_code


def stored() -> list[tuple[Any, ...]]:
    """Number of the lane (1, 2, ...), kind and text of each message, in order."""
    lane = "dense_rank() OVER (ORDER BY conversation_id)"
    return runtime.read(f"SELECT {lane}, kind, text FROM message ORDER BY conversation_id, sequence", ())


def test_a_batch_is_stored_in_order_once_and_a_bad_item_is_set_aside(shop: Channel) -> None:
    """A thousand messages are the most that Meta sends at once: all within the time of one request."""
    people = [{"from": f"4915{person}", "from_user_id": f"DE.{person}"} for person in range(300)]
    batch = [text(number, str(number), **people[number % 300]) for number in range(999)]
    batch[100] = {"id": "wamid.100", "type": "text"}
    batch.insert(200, batch[7])
    assert [post(shop, *batch), post(shop, *batch), post(shop, *batch, secret="another")] == [200, 200, 401]
    lanes: dict[int, list[str]] = {}
    for lane, _, words in stored():
        lanes.setdefault(lane, []).append(words)
    told = [[str(number) for number in range(person, 999, 300) if number != 100] for person in range(300)]
    assert sorted(lanes.values()) == sorted(told)
    aside = runtime.read("SELECT DISTINCT reason, body FROM quarantine", ())
    assert [(reason, json.loads(bytes(raw))) for reason, raw in aside] == [("from is empty", batch[100])]


# ---------------------------------------------------------------- who a person is

# What a webhook states: ``P``, a number alone; ``a``, a user id alone; ``aP``, both; ``P>Q`` and ``P>cQ``, Meta's
# message that number P became Q, without and with the new user id; ``a>c``, the same of a user id. Then the person of
# each (1, 2, ... as they first wrote), and the same where all come in one request; None: there a number leads to its
# last owner.
SEQUENCES = [
    ("P aP a P", "1111", "1111"),  # a number alone, and then its user id
    ("aP P a", "111", "111"),
    ("a aP P", "111", "111"),
    ("P a aP P", "1222", "1111"),  # nothing said that the two are one, until both came together
    ("aP bP P a b", "12212", "12212"),  # a number that went to somebody else
    ("P aP bP a b P", "112122", None),
    ("aP bP aP P", "1211", "1211"),
    ("aP aQ P bP Q", "11121", None),
    ("aP P>Q cQ c Q a", "111111", "111111"),  # a change of number
    ("P P>Q cQ bP P", "11122", None),
    ("P>Q Q cQ dQ c", "11121", None),
    ("aP P>cQ cQ c bQ", "11112", "11112"),
    ("aP P>cQ dP dQ c a", "112211", None),
    ("cQ P P>cQ cQ P", "11111", "11111"),  # the new ids wrote first, and nobody has handled that yet
    ("cQ aP P>cQ c a Q", "111111", "111111"),
    ("aP P>Q P>Q cQ bP", "11112", None),  # Meta tells it twice
    ("aP a>c c cP", "1111", "1111"),  # a change of user id
    ("a a>c cP P", "1111", "1111"),
]


def stating(number: int, ids: str, **more: str) -> dict[str, Any]:
    """A message that states ``ids``, as ``SEQUENCES`` has them."""
    old, _, new = ids.partition(">")
    names = {letter: f"DE.{letter}" if letter.islower() else f"4915{ord(letter)}" for letter in ids}
    told = {("from_user_id" if letter.islower() else "from"): names[letter] for letter in old}
    if not new:
        return text(number, ids, **told, **more)
    changed = {("user_id" if letter.islower() else "wa_id"): names[letter] for letter in new}
    kind = "user_changed_number" if new[-1].isupper() else "user_changed_user_id"
    return {**text(number, "", **told), "type": "system", "system": {"body": "changed", "type": kind, **changed}}


def people(channel: Channel) -> tuple[str, int]:
    """The person of each message, and how many conversations have none."""
    found = runtime.read(
        """SELECT c.id, m.platform_id FROM conversation c
             LEFT JOIN message m ON m.conversation_id = c.id AND m.status <> 'skipped'
             JOIN contact k ON k.id = c.contact_id AND k."user" = c."user" AND c."user" = c.chat
            WHERE c.channel_id = %s""", (channel.pk,),
    )  # fmt: skip
    said = sorted((int(name.removeprefix("wamid.")), lane) for lane, name in found if name)
    lanes = [*dict.fromkeys(lane for _, lane in said)]
    return "".join(str(lanes.index(lane) + 1) for _, lane in said), len(found) - len(said)


def test_two_people_never_become_one_and_a_person_stays_the_same(shop: Channel) -> None:
    found = []
    for ids, _, at_once in SEQUENCES:
        said = [stating(number, each) for number, each in enumerate(ids.split())]
        alone = add_shop(ids)
        assert [post(alone, each) for each in said] == [200] * len(said)
        found.append((ids, people(alone), None))
        if at_once:
            together = add_shop(f"{ids} at once")
            assert post(together, *said) == 200
            found[-1] = (ids, people(alone), people(together))
    assert found == [(ids, (one, 0), at_once and (at_once, 0)) for ids, one, at_once in SEQUENCES]


# What came, which of it comes once more, who then writes, and the person of each; the same in one request, as above.
REPEATS = [
    ("aP bP", 0, "P", "122", "122"),
    ("aP P>cQ dQ", 1, "Q", "1122", "1122"),
    ("aP P>Q cQ bP", 1, "P", "11122", None),
    ("P bP", 0, "P", "111", "111"),
]


@pytest.mark.parametrize("at_once", [False, True], ids=["alone", "in one request"])
def test_a_repeat_gives_nobody_former_ids_back(shop: Channel, at_once: bool) -> None:
    found, expected = [], [(each[0], each[4 if at_once else 3]) for each in REPEATS if each[4] or not at_once]
    for ids, again, then, *_ in REPEATS:
        said = [stating(number, each) for number, each in enumerate(ids.split())]
        channel = add_shop(ids)
        posts = [[*said, said[again]]] if at_once else [[each] for each in [*said, said[again]]]
        assert [post(channel, *each) for each in posts] == [200] * len(posts)
        assert post(channel, stating(len(said), then)) == 200
        found.append((ids, people(channel)[0]))
    assert [each for each in found if each[0] in dict(expected)] == expected
    wrong = runtime.read(
        """SELECT k."user", k.phone FROM contact k JOIN alias a ON a.channel_id = k.channel_id AND a.of = 'user'
              AND a.value = k.phone AND a.known_as <> k."user" """, (),
    )  # fmt: skip
    assert wrong == [], "a phone is nobody else's by now"


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """How often each message was queued (its id), and how often it was in a batch ("try <id>")."""
    seen: collections.Counter[str] = collections.Counter()
    lane, write = StoreStream.lane, StoreStream.write

    def queued(stream: StoreStream, item: StoreItem) -> Any:
        seen.update([item.row.platform_id] if item.row else [])
        return lane(stream, item)

    def tried(stream: StoreStream, connection: Any, items: Sequence[StoreItem]) -> Any:
        seen.update(f"try {item.row.platform_id}" for item in items if item.row)
        return write(stream, connection, items)

    monkeypatch.setattr(StoreStream, "lane", queued)
    monkeypatch.setattr(StoreStream, "write", tried)
    return seen


def in_lanes() -> dict[str, list[str]]:
    """What each conversation has, by the id that it began with, in order; what is over in brackets."""
    rows = runtime.read(
        """SELECT c."user", CASE m.status WHEN 'pending' THEN m.platform_id ELSE '(' || m.platform_id || ')' END
             FROM message m JOIN conversation c ON c.id = m.conversation_id ORDER BY c.id, m.sequence""", (),
    )  # fmt: skip
    lanes: dict[str, list[str]] = {}
    for user, name in rows:
        lanes.setdefault(user.removeprefix("DE."), []).append(name.replace("wamid.", ""))
    return lanes


@pytest.mark.parametrize("held", [False, True], ids=["free", "its old lane is held"])
def test_what_a_new_id_wrote_before_its_notice_goes_on_in_front_of_what_it_writes_next(
    shop: Channel, own_database: str, tries: collections.Counter[str], held: bool
) -> None:
    for number, ids in enumerate(("aP", "cQ", "cQ", "cQ")):
        assert post(shop, stating(number, ids)) == 200
    runtime.execute(
        """WITH first AS (UPDATE message SET status = 'handled', settled_at = now() WHERE platform_id = 'wamid.1')
           UPDATE conversation SET next_sequence = 2, opted_out_at = now() WHERE chat = 'DE.c'"""
    )
    runtime.execute(
        """WITH m AS (SELECT m.* FROM message m WHERE platform_id = 'wamid.2'),
                paid AS (INSERT INTO once (message_id, name, key) SELECT id, 'pay', gen_random_uuid() FROM m)
           INSERT INTO media (id, channel_id, conversation_id, message_id, status)
           SELECT gen_random_uuid(), %(shop)s, conversation_id, id, 'stored' FROM m""", {"shop": shop.pk},
    )  # fmt: skip
    assert post(shop, stating(4, "aP>cQ")) == 200
    assert in_lanes() == {"a": ["0", "4"], "c": ["(1)", "2", "3"]}, "until the person writes again"
    with psycopg.connect(own_database) as other, ThreadPoolExecutor(1) as pool:
        if held:
            other.execute("SELECT FROM conversation WHERE chat = 'DE.c' FOR UPDATE")
        posted = pool.submit(post, shop, stating(5, "c"))
        if held:
            wait_until(lambda: tries["try wamid.5"] > 1, 2, "the message waits")
            assert in_lanes()["a"] == ["0", "4"]
        other.rollback()
        assert posted.result() == 200
    assert post(shop, stating(6, "Q")) == 200
    assert in_lanes() == {"a": ["0", "4", "2", "3", "5", "6"], "c": ["(1)", "(2)", "(3)"]}
    lanes = runtime.read(
        """SELECT c.epoch, c.due_at IS NULL, c.opted_out_at IS NULL, k."user" FROM conversation c
             JOIN contact k ON k.id = c.contact_id ORDER BY c.id""", (),
    )  # fmt: skip
    assert lanes == [(0, False, False, "DE.a"), (1, True, False, "DE.a")]
    taken = """SELECT m.platform_id, m.status FROM once o JOIN media f USING (message_id)
                 JOIN message m ON m.id = f.message_id AND m.conversation_id = f.conversation_id"""
    assert runtime.read(taken, ()) == [("wamid.2", "pending")], "its effects and its files"
    notes = Audit.objects.order_by("id").filter(verb="joined_with").values_list("conversation_id", "subject")
    ours, theirs = Conversation.objects.order_by("id").values_list("id", flat=True)
    assert list(notes) == [(theirs, f"conversation {ours}"), (ours, f"conversation {theirs}")]
    turns = runtime.read("SELECT id FROM message WHERE platform_id = 'wamid.2' ORDER BY id", ())
    parts, ours = [{"key": "k", "body": {"text": "done"}}], {"tenant_id": shop.tenant_id, "channel_id": shop.pk}
    late = [LateItem(message_id=turn, parts=parts, **ours) for (turn,) in turns]
    with contextlib.closing(database.connect("another process")) as own:
        verdicts = [each[0] for each in LATE.write(own, late)]
    assert verdicts == ["unknown", "early"], "the turn of a message that goes on elsewhere is another one"


def test_in_a_group_too_a_new_id_goes_on_where_the_old_one_was(shop: Channel) -> None:
    said = [
        stating(0, "aP", group_id="g"),
        stating(1, "cQ", group_id="g"),
        stating(2, "aP>cQ"),
        stating(3, "c", group_id="g"),
    ]
    assert [post(shop, each) for each in said] == [200] * 4
    assert in_lanes() == {"a": ["0", "1", "3", "2"], "c": ["(1)"]}, "the last lane is the private one"


def test_a_long_backlog_goes_on_in_several_transactions(shop: Channel) -> None:
    """Between them the bot takes nothing from the old lane, and the message that found it waits."""
    for number, ids in enumerate(("aP", "cQ", "aP>cQ")):
        assert post(shop, stating(number, ids)) == 200
    kept, ended = (Conversation.objects.get(chat=chat) for chat in ("DE.a", "DE.c"))
    add_messages(runtime.read, ended.pk, [str(number) for number in range(2001)])
    runtime.read("SELECT join_lanes(%s, %s)", (ended.pk, kept.pk))
    between = "next_sequence, not_before > now() + interval '50 s', due_at = not_before"
    assert runtime.read(f"SELECT {between} FROM conversation WHERE id = %s", (ended.pk,)) == [(1001, True, True)]
    assert (post(shop, stating(3, "c")), Audit.objects.filter(verb="joined_with").count()) == (200, 2)
    of_one = "SELECT max(n) FROM (SELECT count(*) AS n FROM message WHERE conversation_id = %s GROUP BY xmin::text) t"
    assert runtime.read(of_one, (kept.pk,)) == [(1000,)]
    words = runtime.read("SELECT text FROM message WHERE conversation_id = %s ORDER BY sequence", (kept.pk,))
    assert [each for (each,) in words] == ["aP", "", "cQ", *map(str, range(2001)), "c"]
    assert not runtime.read("SELECT FROM conversation WHERE id = %s AND due_at IS NOT NULL", (ended.pk,))


@pytest.mark.parametrize(("held_up", "mode"), [
    ("mode = 'human'", "human"), ("blocked = true", "human"), ("paused_at = now()", "bot"),
])  # fmt: skip
def test_what_holds_the_bot_back_under_the_new_id_does_so_in_the_persons_conversation(
    shop: Channel, held_up: str, mode: str
) -> None:
    for number, ids in enumerate(("aP", "cQ")):
        assert post(shop, stating(number, ids)) == 200
    runtime.execute(f"UPDATE conversation SET due_at = NULL, {held_up} WHERE chat = 'DE.c'")
    assert [post(shop, stating(number, ids)) for number, ids in ((2, "aP>cQ"), (3, "c"))] == [200, 200]
    lane = Conversation.objects.get(chat="DE.a")
    assert (lane.mode, lane.due_at, lane.paused_at is None) == (mode, None, mode == "human")
    assert in_lanes() == {"a": ["0", "2", "1", "3"], "c": ["(1)"]}
    Conversation.objects.filter(pk=lane.pk).update(mode="bot")
    runtime.read("SELECT join_lanes(c.id, %s) FROM conversation c WHERE chat = 'DE.c'", (lane.pk,))
    lane.refresh_from_db()
    assert (lane.mode, Audit.objects.filter(verb="joined_with").count()) == ("bot", 2), "once, whoever looked too early"


def test_a_persons_messages_keep_their_order_whichever_id_they_name(
    shop: Channel, own_database: str, tries: collections.Counter[str]
) -> None:
    """Their lane is held while they come, in two requests; a batch that looks at ids alone sees two lanes."""
    for number, ids in enumerate(("P", "aP")):
        assert post(shop, stating(number, ids)) == 200
    with psycopg.connect(own_database) as other, ThreadPoolExecutor(2) as pool:
        other.execute("SELECT FROM conversation FOR UPDATE")
        first = pool.submit(post, shop, *[stating(number, ids) for number, ids in enumerate(("a", "a", "P", "a"), 2)])
        wait_until(lambda: tries["try wamid.2"] > 1, 2, "the first request waits")
        second = pool.submit(post, shop, *[stating(number, ids) for number, ids in enumerate(("P", "P", "a"), 6)])
        wait_until(lambda: tries["wamid.8"] > 0, 2, "both wait")
        other.rollback()
        assert (first.result(), second.result()) == (200, 200)
    assert [words for _, _, words in stored()] == ["P", "aP", "a", "a", "P", "a", "P", "P", "a"]


def test_nothing_overtakes_where_a_batch_failed_and_each_is_written_alone(
    shop: Channel, own_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, ids in enumerate(("P", "aP")):
        assert post(shop, stating(number, ids)) == 200
    write = StoreStream.write
    with psycopg.connect(own_database) as other:
        other.execute("SELECT FROM conversation FOR UPDATE")

        def alone(stream: StoreStream, connection: Any, items: Sequence[StoreItem]) -> Any:
            if len(items) > 1:
                raise psycopg.DataError("one of them cannot be stored")
            results = write(stream, connection, items)
            other.rollback()  # the lane was locked for the first one only
            return results

        monkeypatch.setattr(StoreStream, "write", alone)
        assert post(shop, stating(2, "P"), stating(3, "a")) == 200
    assert [words for _, _, words in stored()] == ["P", "aP", "P", "a"]


@pytest.fixture
def store_beside(shop: Channel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Future[Any]]]:
    """Stores messages on a connection of its own, as another process would; returns once that waits or is over."""
    config = registry.channel(shop.pk)
    assert config is not None
    monkeypatch.setattr(database, "LIMITS", database.LIMITS.replace("'500'", "'4000'").replace("'2000'", "'4000'"))
    running: list[Future[Any]] = []

    def store(said: Sequence[dict[str, Any]]) -> list[str]:
        incoming = WebhookRequest(method="POST", url="", headers={}, query={}, body=body(*said))
        items = make_items(ParsedRequest(config, registry.adapter("whatsapp").parse(config, incoming), incoming))
        with contextlib.closing(database.connect("another process")) as own:
            return [verdict for verdict, *_ in StoreStream().write(own, items)]

    def waits() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return int(runtime.read(query, ())[0][0]) == sum(not each.done() for each in running)

    with ThreadPoolExecutor() as pool:

        def begin(*said: dict[str, Any]) -> Future[Any]:
            running.append(pool.submit(store, said))
            wait_until(waits, 20, "the process waits")
            return running[-1]

        yield begin


@pytest.mark.parametrize("order", [("P", "aP"), ("aP", "P")])
def test_two_processes_that_store_a_new_person_under_two_ids_store_one_person(
    shop: Channel, own_database: str, store_beside: Callable[..., Future[Any]], order: tuple[str, str]
) -> None:
    """Both are held up after they have looked up the ids, and before they have stored anybody."""
    with psycopg.connect(own_database) as gate:
        gate.execute("LOCK TABLE contact IN SHARE MODE")
        both = [store_beside(stating(number, ids)) for number, ids in enumerate(order)]
        gate.rollback()
        assert [each.result() for each in both] == [["stored"], ["stored"]]
    assert people(shop) == ("11", 0)


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [("cQ dQ aP bP", "aP bP cQ dQ", "Q"), ("P>cQ", "cQ", "P")],
    ids=["the same people in another order", "a change of number and the new one"],
)
def test_two_processes_lock_ids_in_one_order(
    shop: Channel, own_database: str, store_beside: Callable[..., Future[Any]], first: str, second: str, held: str
) -> None:
    """The row of one number is held until both wait or are done."""
    assert post(shop, *[stating(number, each) for number, each in enumerate("PQ", 90)]) == 200
    row = (shop.pk, f"4915{ord(held)}")
    with psycopg.connect(own_database) as gate:
        gate.execute("SELECT FROM alias WHERE channel_id = %s AND of = 'chat' AND value = %s FOR UPDATE", row)
        both = [
            store_beside(*[stating(number, each) for number, each in enumerate(ids.split(), start)])
            for ids, start in ((first, 0), (second, 10))
        ]
        gate.rollback()
        assert {verdict for each in both for verdict in each.result()} == {"stored"}


def test_a_number_is_the_phone_of_one_person(shop: Channel) -> None:
    """A bot that looks for somebody's orders by the phone must not find another one's."""
    for number, ids in enumerate(("aP", "bP", "cQ", "b>dQ")):
        assert post(shop, stating(number, ids)) == 200
    people = runtime.read('SELECT "user", phone FROM contact ORDER BY "user"', ())
    assert people == [("DE.a", ""), ("DE.b", "491581"), ("DE.c", "")]


def test_a_reply_does_not_go_to_a_number_that_is_somebody_elses_by_now(shop: Channel) -> None:
    for number, ids in enumerate(("aP", "bP", "P")):
        assert post(shop, stating(number, ids)) == 200
    lanes = [lane for (lane,) in runtime.read("SELECT id FROM conversation ORDER BY id", ())]
    addresses = [row[5] for row in runtime.read(sql("fetch_replies"), {"ids": lanes})]
    assert addresses == [{"to": None, "recipient": "DE.a"}, {"to": "491580", "recipient": "DE.b"}]


# ---------------------------------------------------------------- statuses, and whatever else comes

UNREACHABLE = "131026 the person cannot be reached: no WhatsApp, an old version, or its terms are not accepted (x)"
# What Meta says of a reply, in this order -> what the reply is then; None: it is as before.
STATUSES: list[tuple[str, tuple[str, str, str] | None]] = [
    ("sent", ("sent", "none", "")),
    ("delivered", ("sent", "delivered", "")),
    ("read", ("sent", "read", "")),
    ("played", ("sent", "read", "")),
    ("failed", ("failed", "none", UNREACHABLE)),
    ("sent failed", ("failed", "none", UNREACHABLE)),
    ("failed delivered sent", ("sent", "delivered", "")),
    ("read failed delivered", ("sent", "read", "")),
    ("warned", None),
]


@pytest.mark.parametrize("before", ["sent", "unknown"])
def test_each_status_makes_of_a_reply_what_the_table_says(shop: Channel, before: str) -> None:
    """A reply of unknown outcome is found by our key, any other by Meta's id."""
    error = {"code": 131026, "title": "Message undeliverable", "error_data": {"details": "x"}}
    found = []
    for number, (told, _) in enumerate(STATUSES):
        assert post(shop, text(number, "hi", from_user_id=f"DE.{number}")) == 200
        lane = Conversation.objects.get(user=f"DE.{number}")
        add_replies(runtime.read, lane.pk, ["hello"], [before])
        reply, name = Reply.objects.get(conversation=lane), f"wamid.OUT{number}"
        Reply.objects.filter(pk=reply.pk).update(platform_id="" if before == "unknown" else name, intent_at=Now())
        said = [
            {"id": name, "status": word, "timestamp": "1790000009", "biz_opaque_callback_data": str(reply.key),
             **({"errors": [error]} if word == "failed" else {})}
            for word in told.split()
        ]  # fmt: skip
        assert post(shop, statuses=said) == 200
        found.append((told, Reply.objects.values_list("status", "delivered", "error").get(pk=reply.pk)))
    assert found == [(told, after or (before, "none", "")) for told, after in STATUSES]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_each_item_of_a_request_is_stored_noted_or_set_aside(shop: Channel, data: Any) -> None:
    changed = json.loads(request("whatsapp", data.draw(st.sampled_from(WHOLE))).body)
    path = data.draw(st.sampled_from(places(changed["entry"])))
    put(changed["entry"], path, data.draw(ANYTHING), data.draw(st.booleans()))
    raw = json.dumps(changed).encode()
    config = registry.channel(shop.pk)
    assert config is not None
    parsed = registry.adapter("whatsapp").parse(config, incoming(raw))
    assert post_raw(shop, raw) == 200
    newest = "FROM receipt ORDER BY id DESC LIMIT 1"
    ((counted,),) = runtime.read(f"SELECT stored + duplicates + noted + quarantined {newest}", ())
    assert counted >= len(parsed)  # a conflict counts twice


def test_the_view_shakes_hands(shop: Channel) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": "our words", "hub.challenge": "1158201444"}
    answers = [Client().get(shop.webhook_path, {**asked, **more}) for more in ({}, {"hub.verify_token": "wrong"})]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"1158201444"), (403, b"forbidden\n")]
