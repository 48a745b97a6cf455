"""Every fixture, and how it reads: kind (or what it is instead), whether it starts a turn, text, and what else it has.

Rows leave out the person and chat that most fixtures share.
"""

from __future__ import annotations

from typing import Any

import pytest

from conversations.contracts import Entry, Parsed
from tests.adapters.fixtures import names, parse, summary

Row = tuple[Any, ...]
SHARED = {"telegram": {"user": "7001", "chat": "7001"}, "generic": {"user": "cust-1", "chat": "shop-chat-1"}}
ALWAYS = ("chat", "key", "payload", "command", "args", "target", "thread", "group_id", "new_chat", "sequence", "group")
DATA = ("callback_query_id", "content", "removed", "users", "inline_message_id")


def read(platform: str, parsed: Parsed) -> Row:
    if not isinstance(parsed, Entry):
        return summary(parsed)
    found = {"user": parsed.sender.user} | {name: getattr(parsed, name) for name in ALWAYS if getattr(parsed, name)}
    if parsed.attachments:
        found["attachments"] = [
            (item.kind, item.file_id or item.url or item.phone or str(item.latitude)) for item in parsed.attachments
        ]
    data = {name: value for name, value in parsed.data.items() if name in DATA}
    return (*summary(parsed), {**found, **({"data": data} if data else {})})


def wanted(platform: str, row: Row) -> Row:
    return (*row[:3], {**SHARED[platform], **row[3]}) if len(row) == 4 else row


@pytest.mark.parametrize("name", names("telegram"))
def test_telegram_reads_each_fixture(name: str) -> None:
    parsed = parse("telegram", name, username="orders_bot")
    assert [read("telegram", each) for each in parsed] == [wanted("telegram", row) for row in TELEGRAM[name]]


@pytest.mark.parametrize("name", names("generic"))
def test_generic_reads_each_fixture(name: str) -> None:
    parsed = parse("generic", name)
    assert [read("generic", each) for each in parsed] == [wanted("generic", row) for row in GENERIC[name]]


def test_a_group_without_a_known_username_takes_commands_for_any_bot() -> None:
    (entry,) = parse("telegram", "group_command_for_another")
    assert isinstance(entry, Entry)
    assert entry.starts_turn


def test_the_address_of_the_newest_message_forgets_the_topic() -> None:
    (inside,), (outside,) = parse("telegram", "topic_text"), parse("telegram", "group_plain")
    assert isinstance(inside, Entry)
    assert isinstance(outside, Entry)
    merged = {**inside.address, **outside.address}
    assert (inside.address["thread"], merged["thread"]) == (9, None)


def test_both_sayings_of_a_migration_are_one_identity() -> None:
    (first,), (second,) = parse("telegram", "migrate_to"), parse("telegram", "migrate_from")
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.kind, first.chat, first.key, first.new_chat) == (
        second.kind,
        second.chat,
        second.key,
        second.new_chat,
    )
