"""Every fixture reads as ``tests/fixtures/<platform>.json`` says.

A row is the kind (or what it is instead), whether it starts a turn, the text, and what else it has. Rows leave out the
person and chat that most fixtures share.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels_ingest.adapters.telegram import content
from channels_ingest.adapters.telegram.updates import ALLOWED_UPDATES
from conversations.contracts import Entry, Parsed
from tests.kit.fixtures import FIXTURES, entry, names, parse, summary

SHARED = {
    "telegram": {"user": "7001", "chat": "7001"},
    "generic": {"user": "cust-1", "chat": "shop-chat-1"},
    "whatsapp": {"user": "DE.7001", "chat": "DE.7001"},
}
OPTIONS = {"telegram": {"username": "orders_bot"}}
ALWAYS = ("chat", "key", "payload", "command", "args", "target", "thread", "group_id", "new_chat", "sequence", "group")
DATA = ("callback_query_id", "charge_id", "content", "inline_message_id", "order_info", "removed", "users")
TABLES = {platform: json.loads((FIXTURES / f"{platform}.json").read_text()) for platform in SHARED}


def read(parsed: Parsed) -> list[Any]:
    if not isinstance(parsed, Entry):
        return [*summary(parsed)]
    found = {"user": parsed.sender.user} | {name: getattr(parsed, name) for name in ALWAYS if getattr(parsed, name)}
    if parsed.attachments:
        told = [(item, item.file_id or item.url or item.phone or str(item.latitude)) for item in parsed.attachments]
        found["attachments"] = [[item.kind, where] for item, where in told]
    if data := {name: value for name, value in parsed.data.items() if name in DATA}:
        found["data"] = data
    return [*summary(parsed), found]


def wanted(platform: str, name: str) -> list[Any]:
    rows = TABLES[platform][name]
    return [[*row[:3], {**SHARED[platform], **row[3]}] if len(row) == 4 else row for row in rows]


@pytest.mark.parametrize(("platform", "name"), [(platform, name) for platform in SHARED for name in names(platform)])
def test_each_fixture_reads_as_its_table_says(platform: str, name: str) -> None:
    parsed = parse(platform, name, **OPTIONS.get(platform, {}))
    assert [read(each) for each in parsed] == wanted(platform, name)


def test_a_group_without_a_known_username_takes_commands_for_any_bot() -> None:
    assert entry("telegram", "group_command_for_another").starts_turn


def test_the_address_of_the_newest_message_forgets_the_topic() -> None:
    inside, outside = entry("telegram", "topic_text"), entry("telegram", "group_plain")
    merged = {**inside.address, **outside.address}
    assert (inside.address["thread"], merged["thread"]) == (9, None)


def test_both_sayings_of_a_migration_are_one_identity() -> None:
    sayings = (entry("telegram", name) for name in ("migrate_to", "migrate_from"))
    assert len({(each.kind, each.chat, each.key, each.new_chat) for each in sayings}) == 1


def test_a_new_webhook_asks_for_updates_of_managed_bots() -> None:
    assert "managed_bot" in ALLOWED_UPDATES


def test_an_ephemeral_message_is_no_message_to_answer_by_number() -> None:
    """Its ``message_id`` is 0 for everybody: a reply must not name it."""
    said, press = entry("telegram", "ephemeral"), entry("telegram", "button_ephemeral")
    assert (said.platform_id.isdigit(), said.order_key) == (False, None)
    assert [content.ephemeral_id(each.platform_id) for each in (said, press)] == [(12, 1790000611), (31, 1790000000)]


def test_the_topic_of_a_channels_direct_messages_is_part_of_the_address() -> None:
    assert entry("telegram", "direct_message").address["direct_topic"] == 7001


@pytest.mark.parametrize("quoted", [{}, {"message_id": 0}, {"message_id": 0, "ephemeral_message_id": 7}])
def test_a_quoted_message_without_a_key_does_not_cost_the_update_its_turn(quoted: dict[str, int]) -> None:
    assert content.quoted_key(quoted) == ""


def test_a_photo_with_an_empty_rich_message_keeps_its_caption() -> None:
    message = {"rich_message": {"blocks": []}, "caption": "our new menu"}
    assert content._words(message, {}) == "our new menu"
