"""Reasons are sentences made of facts: which fact outranks which, without a database."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from conversations.desk.facts import Around, Cause, Facts
from conversations.desk.reasons import reasons

NOW = dt.datetime(2026, 11, 29, 12, 0, tzinfo=dt.UTC)
LONG_AGO = NOW - dt.timedelta(hours=1)
NAMES = [field.name for field in dataclasses.fields(Facts)]
IDLE: dict[str, Any] = {
    **dict.fromkeys(NAMES),
    "id": 1, "channel_id": 2, "channel_name": "Shop", "bot": "echo", "tenant_id": 3, "active": True, "mode": "bot",
    "blocked": False, "suspect": False, "attempts": 0, "next_sequence": 5, "last_sequence": 4, "waiting": 0,
    "in_hand": False,
}  # fmt: skip
PENDING = {"last_sequence": 6, "head_status": "pending", "head_received_at": LONG_AGO}
REPLY = {"reply_sequence": 8, "reply_status": "pending", "reply_created_at": LONG_AGO}


@pytest.fixture(autouse=True)
def _own_database() -> None:
    """None is needed."""


def cause(stops: str, **changes: Any) -> Cause:
    values = {"pause_id": 1, "scope": "channel", "target": "2", "stops": stops, "reason": "HTTP 503", "failures": 8,
              "by_staff": False, "since": LONG_AGO, "probe_at": NOW, "channels": [2], "names": ["Shop"],
              "waiting": 1_000}  # fmt: skip
    return Cause(**{**values, **changes})


def say(around: Around | None = None, **changes: Any) -> list[tuple[str, str]]:
    found = reasons(Facts(**{**IDLE, **changes}), around or Around(), NOW)
    return [(reason.weight, reason.text) for reason in found]


HELD = Around(held="this database belongs to another installation", causes=[cause("sending")])
PAUSED = Around(causes=[cause("handling"), cause("sending")])
TABLE: list[tuple[str, Around | None, dict[str, Any], list[tuple[str, str]]]] = [
    ("nothing", None, {}, [("idle", "Nothing is waiting here.")]),
    ("a pause outranks a person", None, {"paused_at": NOW, "mode": "human", "paused_by": "anna"},
     [("stuck", "The bot is paused here by anna.")]),
    ("a person outranks a block", None, {"mode": "human", "blocked": True, **PENDING, "newest_at": LONG_AGO},
     [("stuck", "A person is needed; nobody has taken it yet.")]),
    ("a person who answered last", None, {"mode": "human", "assignee": "anna", "newest_at": NOW, "answered_at": NOW},
     [("person", "A person (anna) answers here.")]),
    ("a block outranks a cause", PAUSED, {"blocked": True, **PENDING, "head_note": "KeyError"},
     [("stuck", "Message 5 is parked and holds up what follows: KeyError.")]),
    ("a bot that nobody knows",
     Around(causes=[cause("handling", scope="unknown", target="orders", reason="")]), PENDING,
     [("stuck", "No running worker knows the bot 'orders'; what comes is stored and waits.")]),
    ("a cause outranks attempts", PAUSED, {**PENDING, "attempts": 2},
     [("stuck", "Channel 'Shop' is paused after 8 failures in a row: HTTP 503.")]),
    ("a cause of another channel is none", PAUSED, {**PENDING, "channel_id": 9}, [("flows", "Message 5 is next.")]),
    ("attempts outrank suspicion", None, {**PENDING, "attempts": 2, "suspect": True, "error_type": "KeyError"},
     [("waits", "The bot failed 2 of 5 times with KeyError; it is tried again.")]),
    ("handling and delivering", None, {**PENDING, "in_hand": True, **REPLY, "send_due_at": NOW},
     [("flows", "Message 5 is with the bot now."), ("flows", "Reply 8 is about to be sent.")]),
    ("a held installation outranks a cause", HELD, REPLY,
     [("stuck", "Reply 8 is held: this database belongs to another installation.")]),
    ("so many wait", PAUSED, REPLY,
     [("stuck", "Channel 'Shop' cannot send: HTTP 503; 1,000 or more conversations wait.")]),
    ("what blocks is named once", None, {"blocked": True, **PENDING, "parked_sequence": 5},
     [("stuck", "Message 5 is parked and holds up what follows.")]),
    ("what was parked before is named too", None, {"parked_sequence": 3, "parked_note": "KeyError"},
     [("stuck", "Message 3 was parked: KeyError.")]),
    ("unreachable outranks the reply that was refused", None,
     {"unreachable_since": NOW, "refused_sequence": 7, "refused_status": "parked"},
     [("waits", "The person has blocked us; each reply is parked until they write and goes out only if sent again.")]),
    ("an opt-out outranks that", None, {"opted_out_at": NOW, "opted_out_by": "anna", "unreachable_since": NOW},
     [("waits", "The person wants no more messages (anna); each reply is parked and goes out only if sent again.")]),
]  # fmt: skip


@pytest.mark.parametrize(("around", "changes", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_reasons_in_their_order(around: Around | None, changes: dict[str, Any], expected: list[Any]) -> None:
    assert say(around, **changes) == expected
