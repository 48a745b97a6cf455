"""The gate in front of the outbox: what may not go out is parked before it is sent, whatever it meets."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from channels_ingest.adapters.meta.whatsapp_errors import MEANINGS
from conversations import registry, runtime
from conversations.contracts import ChannelConfig, Rejected, Scope, StatusUpdate
from conversations.delivering import decision, results
from conversations.delivering.decision import GATE, Refuse
from conversations.delivering.results import Next, Step
from conversations.delivering.send_stream import SENDS
from conversations.models import Audit, Conversation, Reply
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import LANE_LOCKED
from tests.kit.desk_scenes import make_channel, make_lane, make_reply, replies
from tests.kit.entries import accept, entry, lane

CLAIM = uuid.uuid4()
NOW = timezone.now()
PAST, AHEAD = NOW - dt.timedelta(minutes=1), NOW + dt.timedelta(hours=1)
TEXT: dict[str, Any] = {"text": "hi"}
KIND = {"name": "t", "language": "de"}
UTILITY, MARKETING = ({"text": "hi", "template": {**KIND, "category": word}} for word in ("utility", "MARKETING"))
WINDOW = "more than 24 hours since the person's last message: only a template can be sent"


@pytest.fixture
def connection(own_database: str) -> Iterator[psycopg.Connection[Any]]:
    with database.connect("send") as opened:
        yield opened


@pytest.fixture
def ada(own_database: str) -> Conversation:
    """One reply waits, in a channel that knows the words."""
    channel = make_channel(platform="whatsapp", options={"phone_number_id": "555000111222333"})
    return make_lane("handled", "pending", channel=channel, window_until=AHEAD)


def look(row: Conversation) -> Next:
    return Next(*runtime.read(sql("fetch_replies"), {"ids": [row.pk]})[0])


def channel_of(row: Conversation) -> ChannelConfig:
    channel = registry.channel(row.channel_id)
    assert channel is not None
    return channel


def intend(connection: psycopg.Connection[Any], reply: Next) -> Any:
    step = Step(id=reply.id, channel_id=reply.channel_id, intent_claim=str(CLAIM), intent_id=reply.reply_id)
    step.intent_sequence, step.intent_number = reply.sequence, reply.intent_number
    return SENDS.write(connection, [step])[0]


def say(row: Conversation, text: str) -> None:
    accept(channel_of(row), entry(row.chat, text))


@pytest.mark.parametrize(("stops", "author", "body", "refused"), [
    ({}, "bot", TEXT, None),
    ({"opted_out_at": NOW}, "bot", TEXT, "opted_out"),
    ({"opted_out_at": NOW}, "system", TEXT, "opted_out"),
    ({"opted_out_at": NOW}, "person", TEXT, "opted_out"),
    ({"opted_out_at": NOW}, "bot", UTILITY, "opted_out"),
    ({"opted_out_at": NOW, "unreachable_since": NOW, "window_until": PAST}, "bot", TEXT, "opted_out"),
    ({"unreachable_since": NOW}, "bot", UTILITY, "unreachable"),
    ({"unreachable_since": NOW}, "system", TEXT, "unreachable"),
    ({"unreachable_since": NOW}, "person", TEXT, None),
    ({"no_marketing_since": NOW}, "person", MARKETING, "no_marketing"),
    ({"no_marketing_since": NOW}, "bot", UTILITY, None),
    ({"no_marketing_since": NOW}, "bot", TEXT, None),
    ({"window_until": PAST}, "bot", TEXT, "window"),
    ({"window_until": PAST}, "person", TEXT, "window"),
    ({"window_until": PAST}, "bot", UTILITY, None),
    ({"window_until": AHEAD}, "bot", TEXT, None),
    ({"window_until": None}, "bot", TEXT, None),
])  # fmt: skip
def test_what_may_not_go_out_is_refused_before_and_at_the_intent(
    ada: Conversation,
    connection: psycopg.Connection[Any],
    stops: dict[str, Any],
    author: str,
    body: dict[str, Any],
    refused: str | None,
) -> None:
    Reply.objects.update(author=author, body=body)
    before = look(ada)
    Conversation.objects.update(**stops)
    reply = look(ada)
    assert reply.refusal == refused
    assert intend(connection, before).intent is (refused is None), "asked again where the intent is written"
    decided = decision.refusal(reply, channel_of(ada))
    if refused is None:
        assert decided is None
        return
    assert isinstance(decided, Refuse)
    assert decided == Refuse("parked", GATE[refused].format(hours=24))
    (written,) = SENDS.write(connection, [results.result(reply, None, decided.status, error=decided.reason)])
    assert written.result
    assert list(Reply.objects.values_list("status", "error")) == [decided]
    ada.refresh_from_db()
    assert ada.next_reply_sequence == 2, "the lane goes on"


def test_the_platforms_own_refusals_have_the_same_words() -> None:
    assert {MEANINGS[code].words for code in (470, 131047)} == {WINDOW} == {GATE["window"].format(hours=24)}
    assert MEANINGS[131050].words == GATE["no_marketing"]


# ---------------------------------------------------------------- an opt-out that meets a send


def test_no_send_starts_after_an_opt_out_was_stored_between_the_turns_commit_and_the_send(
    ada: Conversation, connection: psycopg.Connection[Any]
) -> None:
    """The sender has read the reply; storing holds the lane when the intent comes, and commits."""
    reply, holding, go_on = look(ada), threading.Event(), threading.Event()

    def store() -> None:
        with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
            other.execute("SELECT FROM conversation WHERE id = %s FOR NO KEY UPDATE", (ada.pk,))
            holding.set()
            assert go_on.wait(10)
            other.execute("UPDATE conversation SET opted_out_at = now() WHERE id = %s", (ada.pk,))

    storing = threading.Thread(target=store)
    storing.start()
    assert holding.wait(10)
    assert intend(connection, reply) is LANE_LOCKED
    go_on.set()
    storing.join(10)
    written = intend(connection, reply)
    assert (written.intent, written.is_done()) == (False, False), "the sender looks at the lane again, and parks"
    assert look(ada).refusal == "opted_out"
    assert replies(ada) == "pending"


def test_one_reply_to_the_persons_stop_is_its_confirmation(
    ada: Conversation, connection: psycopg.Connection[Any]
) -> None:
    say(ada, "STOP")
    stop = ada.message_set.get(text="STOP")
    Reply.objects.update(status="sent")
    Conversation.objects.update(last_reply_sequence=5, next_reply_sequence=2)
    for sequence, (message, author) in enumerate(
        [(ada.message_set.get(text="words 1"), "bot"), (stop, "bot"), (stop, "bot"), (stop, "person")], 2
    ):
        make_reply(ada, sequence, f"{author}:pending", message_id=message.pk)
    found = [Next(*row).refusal for row in runtime.read(sql("fetch_replies"), {"ids": [ada.pk]})]
    assert found == ["opted_out", None, "opted_out", "opted_out"]
    Reply.objects.filter(sequence=2).update(status="parked")
    Conversation.objects.update(next_reply_sequence=3)
    assert intend(connection, look(ada)).intent


# ---------------------------------------------------------------- what a platform refuses


def refuse(connection: psycopg.Connection[Any], row: Conversation, scope: Scope) -> None:
    reply = look(row)
    assert intend(connection, reply).intent
    step = results.judge(reply, CLAIM, channel_of(row), Rejected(reason="131 no", scope=scope), False)
    assert not (step.stops and decision.may_wait_for_intent(step)), "written before the next intent"
    assert SENDS.write(connection, [step])[0].result
    assert replies(row) == "parked"


@pytest.mark.parametrize(("scope", "stopped", "audit"), [
    (Scope.REPLY, [], []),
    (Scope.WINDOW, ["window_until"], []),
    (Scope.MARKETING, ["no_marketing_since"], [("marketing_refused", "reply 1")]),
    (Scope.CONVERSATION, ["unreachable_since"], [("unreachable", "reply 1")]),
])  # fmt: skip
def test_a_refusal_closes_what_it_concerns(
    ada: Conversation, connection: psycopg.Connection[Any], scope: Scope, stopped: list[str], audit: list[Any]
) -> None:
    refuse(connection, ada, scope)
    ada.refresh_from_db()
    closed = {"window_until": ada.window_until != AHEAD}
    closed |= {name: getattr(ada, name) is not None for name in ("no_marketing_since", "unreachable_since")}
    assert [name for name, is_closed in closed.items() if is_closed] == stopped
    assert list(Audit.objects.values_list("verb", "subject")) == audit


@pytest.mark.parametrize(("wrote", "refusal"), [(False, "window"), (True, None)])
def test_a_window_that_a_status_says_is_closed_opens_with_the_persons_next_message(
    ada: Conversation, connection: psycopg.Connection[Any], wrote: bool, refusal: str | None
) -> None:
    assert intend(connection, look(ada)).intent
    Reply.objects.update(status="sent", claimed_by=None, platform_id="wamid.1")
    if wrote:
        say(ada, "one more thing")
    accept(channel_of(ada), StatusUpdate(platform_id="wamid.1", status="failed", error="131047", scope=Scope.WINDOW))
    assert replies(ada) == "failed"
    make_reply(ada, 2)
    Conversation.objects.update(last_reply_sequence=2, next_reply_sequence=2)
    assert look(ada).refusal == refusal
    say(ada, "hello again")
    assert look(ada).refusal is None


def test_marketing_that_a_status_says_is_not_wanted_is_kept(ada: Conversation) -> None:
    Reply.objects.update(status="sent", platform_id="wamid.1")
    accept(channel_of(ada), StatusUpdate(platform_id="wamid.1", status="failed", error="x", scope=Scope.MARKETING))
    assert lane(ada.chat, "no_marketing_since IS NOT NULL") is True
    assert list(Audit.objects.values_list("verb", "subject")) == [("marketing_refused", "reply 1")]
