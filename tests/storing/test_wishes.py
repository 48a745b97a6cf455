"""What a message says about our messages: until when they may come, and that none shall."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import msgspec
import psycopg
import pytest
from django.db.models.functions import Now

from conversations import runtime
from conversations.contracts import Attachment, ChannelConfig, Kind, StatusUpdate
from conversations.models import Audit, Reply
from conversations.reports import statuses, wishes
from tests.kit.entries import accept, entry, lane, make_channel, new_user, texts
from tests.kit.rows import add_replies
from tests.kit.stack import wait_until

WHATSAPP = ChannelConfig(id=1, public_id="p", platform="whatsapp", tenant_id=1)
TELEGRAM = msgspec.structs.replace(WHATSAPP, platform="telegram")
GENERIC = msgspec.structs.replace(WHATSAPP, platform="generic")
STOPS = "opted_out_at IS NOT NULL", "no_marketing_since IS NOT NULL", "unreachable_since IS NOT NULL"


def heard(channel: ChannelConfig, text: str, **fields: Any) -> str:
    return str(wishes.with_wish(channel, entry("ada", text, **fields)).wish)


@pytest.mark.parametrize(("options", "text", "wish"), [
    ({}, "STOP", "nothing"),
    ({}, " Stop! ", "nothing"),
    ({}, "stop  all", "nothing"),
    ({}, "Unsubscribe.", "nothing"),
    ({}, "START", "all"),
    ({}, "stop it", ""),  # only a whole message
    ({}, "please stop", ""),
    ({}, "cancel", ""),  # people answer bots with it
    ({}, "", ""),
    ({}, "stop" + " " * 40, ""),
    ({"opt_out_words": "baja, Parar"}, "¡baja!", ""),
    ({"opt_out_words": "baja, Parar"}, "PARAR", "nothing"),
    ({"opt_out_words": "baja, Parar"}, "stop", ""),
    ({"opt_out_words": "baja", "opt_in_words": "alta"}, "Alta", "all"),
    ({"opt_out_words": "baja", "opt_in_words": "alta"}, "start", ""),
    ({"opt_out_words": "off"}, "stop", ""),
    ({"opt_out_words": "off"}, "off", ""),
    ({"opt_out_words": "off"}, "start", ""),
])  # fmt: skip
def test_a_message_that_is_one_of_the_words_is_a_wish(options: dict[str, str], text: str, wish: str) -> None:
    assert heard(msgspec.structs.replace(WHATSAPP, options=options), text) == wish


@pytest.mark.parametrize("fields", [
    {"kind": Kind.BUTTON}, {"kind": Kind.EDIT}, {"group": True}, {"attachments": (Attachment(kind="image"),)},
])  # fmt: skip
def test_nothing_else_is_a_wish(fields: dict[str, Any]) -> None:
    assert heard(WHATSAPP, "stop", **fields) == ""


def test_where_people_can_block_us_words_are_words_unless_the_channel_says_so() -> None:
    assert [heard(channel, "stop") for channel in (TELEGRAM, GENERIC)] == ["", ""]
    assert heard(msgspec.structs.replace(TELEGRAM, options={"opt_out_words": "stop"}), "stop") == "nothing"


def ago(days: int) -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(days=days)


NOW, LATELY = "now", ago(3)


@pytest.mark.parametrize(("fields", "from_when"), [
    ({}, NOW),
    ({"sent_at": LATELY}, LATELY),  # it came late: the platform counts from its time
    ({"sent_at": ago(60)}, NOW),
    ({"sent_at": ago(-1)}, NOW),
    ({"kind": Kind.REACTION, "starts_turn": False}, NOW),
    ({"kind": Kind.EDIT, "starts_turn": False}, None),
    ({"kind": Kind.UNSUPPORTED, "starts_turn": False}, None),
    ({"group": True}, None),
])  # fmt: skip
def test_a_message_opens_its_platforms_window(fields: dict[str, Any], from_when: dt.datetime | str | None) -> None:
    assert wishes.window_until(TELEGRAM, entry("ada", "hi", **fields)) is None
    before = ago(0)
    until = wishes.window_until(WHATSAPP, entry("ada", "hi", **fields))
    opened = dt.datetime.fromisoformat(until) - dt.timedelta(hours=24) if until else None
    assert (NOW if opened and before <= opened <= ago(0) else opened) == from_when


@pytest.fixture
def channel(own_database: str) -> ChannelConfig:
    return make_channel("whatsapp")


def audit() -> list[tuple[str, str]]:
    return list(Audit.objects.order_by("id").values_list("verb", "subject"))


def test_the_last_message_decides_and_each_change_is_in_the_audit(channel: ChannelConfig) -> None:
    ada = new_user()
    accept(channel, entry(ada, "hello"), entry(ada, "STOP"))
    assert (lane(ada, *STOPS), texts(ada)) == ((True, False, False), ["hello", "STOP"]), "it is a message as well"
    accept(channel, entry(ada, "stop "))
    accept(channel, entry(ada, "are you there?"))
    assert lane(ada, *STOPS)[0] is True
    accept(channel, entry(ada, "start", key="1"), entry(ada, "stop", key="2"), entry(ada, "Start", key="3"))
    assert lane(ada, *STOPS)[0] is False
    accept(channel, entry(ada, "STOP"))
    assert lane(ada, *STOPS)[0] is False, "a repeat says nothing again"
    assert audit() == [("opted_out", "message 2"), ("opted_in", "message 7")]


def test_a_preference_of_the_platform_and_a_block_are_kept_beside_it(channel: ChannelConfig) -> None:
    ada = new_user()
    kept = {"kind": Kind.UNSUPPORTED, "starts_turn": False}
    accept(channel, entry(ada, "stop"), entry(ada, "no ads", wish="no_marketing", **kept))
    accept(channel, entry(ada, "blocked", kind=Kind.BLOCKED, starts_turn=False))
    assert lane(ada, *STOPS) == (True, True, True)
    accept(channel, entry(ada, "unblocked", kind=Kind.FOLLOWED, starts_turn=False))
    accept(channel, entry(ada, "ads", wish="marketing", **kept), entry(ada, "start"))
    assert lane(ada, *STOPS) == (False, False, False)
    verbs = ["opted_out", "marketing_refused", "unreachable", "reachable", "opted_in", "marketing_allowed"]
    assert sorted(verb for verb, _ in audit()) == sorted(verbs)


def test_a_repeated_refusal_stops_nothing_that_was_allowed_since(
    channel: ChannelConfig, own_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meta refuses marketing (131050), the person allows it, and Meta posts the refusal again."""
    monkeypatch.setattr(statuses, "AGAIN_SECONDS", 0.2)
    ada = new_user()

    def refused(reply: str) -> StatusUpdate:
        return StatusUpdate(platform_id=reply, status="failed", error="131050", scope="marketing")

    def send(reply: str) -> None:
        add_replies(runtime.read, lane(ada, "id"), ["hello"], ["sent"])
        Reply.objects.filter(platform_id="").update(platform_id=reply, intent_at=Now())

    accept(channel, entry(ada, "hello"))
    send("first")
    with psycopg.connect(own_database) as other:
        other.execute("SELECT FROM conversation FOR UPDATE")
        release = threading.Timer(0.2, other.rollback)
        release.start()
        accept(channel, refused("first"))  # at first its lane is busy
        release.join()
    assert lane(ada, *STOPS)[1] is True
    accept(channel, entry(ada, "ads", kind=Kind.UNSUPPORTED, starts_turn=False, wish="marketing"))
    accept(channel, refused("first"))
    assert lane(ada, *STOPS)[1] is False
    accept(channel, refused("early"))
    send("early")  # which the status names: it stops at its second write
    wait_until(lambda: lane(ada, *STOPS)[1], 5, "the early refusal counts")


def test_a_window_only_grows(channel: ChannelConfig) -> None:
    ada = new_user()
    accept(channel, entry(ada, "1"))
    opened = lane(ada, "window_until")
    accept(channel, entry(ada, "2", sent_at=LATELY), entry(ada, "3", kind=Kind.EDIT, starts_turn=False))
    assert lane(ada, "window_until") == opened
    accept(channel, entry(ada, "4"))
    assert lane(ada, "window_until") > opened
    other = new_user()
    accept(make_channel("generic"), entry(other, "1"))
    assert lane(other, "window_until") is None
    assert runtime.read("SELECT count(*) FROM audit") == [(0,)]
