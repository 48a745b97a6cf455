"""Every fixture, and how it reads: kind (or what it is instead), whether it starts a turn, text, and what else it has.

Rows leave out the person and chat that most fixtures share.
"""

from __future__ import annotations

from typing import Any

import pytest

from channels_ingest.adapters.telegram import content
from channels_ingest.adapters.telegram.updates import ALLOWED_UPDATES
from conversations.contracts import Entry, Parsed
from tests.kit.fixtures import names, parse, summary

Row = tuple[Any, ...]
SHARED = {"telegram": {"user": "7001", "chat": "7001"}, "generic": {"user": "cust-1", "chat": "shop-chat-1"}}
ALWAYS = ("chat", "key", "payload", "command", "args", "target", "thread", "group_id", "new_chat", "sequence", "group")
DATA = ("callback_query_id", "charge_id", "content", "inline_message_id", "order_info", "removed", "users")

RICH_WORDS = """\
My order
Two bags of Sencha🍵, please.
1. not before noon
2. ring twice
tea | euro
Sencha | 9
Prices
as last time
Ada
Address
12 High St
London
2 \\cdot 9
the bag
me"""

TELEGRAM: dict[str, list[Row]] = {
    "album_1_of_2": [("message", True, "both", {"attachments": [("image", "a1")], "group_id": "136", "key": "m:510"})],
    "album_2_of_2": [("message", True, "", {"attachments": [("image", "a2")], "group_id": "136", "key": "m:511"})],
    "animation": [("message", True, "", {"attachments": [("video", "an1")], "key": "m:516"})],
    "anonymous_admin": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "key": "m:541", "user": "-1009876543210"},
        )
    ],
    "answer_to_poll_option": [("unsupported", True, "", {"data": {"content": ["live_photo"]}, "key": "m:608"})],
    "audio": [("message", True, "", {"attachments": [("audio", "au1")], "key": "m:513"})],
    "blocked": [
        (
            "blocked",
            False,
            "",
            {"data": {"users": [{"id": "4242", "name": "Orders"}]}, "key": "c:4242:1790000058:member:kicked"},
        )
    ],
    "bot_added": [
        (
            "joined",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"users": [{"id": "4242", "name": "Orders"}]},
                "group": True,
                "key": "c:4242:1790000060:left:member",
                "user": "7001",
            },
        )
    ],
    "bot_kicked": [
        (
            "left",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"users": [{"id": "4242", "name": "Orders"}]},
                "group": True,
                "key": "c:4242:1790000061:administrator:kicked",
                "user": "7001",
            },
        )
    ],
    "bot_promoted": [("note", "rights of a member changed")],
    "business_connection": [("note", "a business account was connected or changed")],
    "business_message": [("message", True, "are you open?", {"chat": "7001@bc1", "key": "m:543", "user": "7001"})],
    "business_message_of_ours": [("note", "a message of a bot")],
    "business_message_of_the_owner": [("message", False, "yes", {"chat": "7001@bc1", "key": "m:544", "user": "6000"})],
    "button": [
        (
            "button",
            True,
            "Yes, please",
            {
                "data": {"callback_query_id": "9000000001"},
                "key": "b:9000000001",
                "payload": "confirm:7",
                "target": "77",
            },
        )
    ],
    "button_ephemeral": [
        (
            "button",
            True,
            "Ok",
            {
                "chat": "-1009876543210",
                "data": {"callback_query_id": "9000000005"},
                "group": True,
                "key": "b:9000000005",
                "payload": "ok",
                "target": "0.31.1790000000",
                "user": "7001",
            },
        )
    ],
    "button_group": [
        (
            "button",
            True,
            "Ok",
            {
                "chat": "-1009876543210",
                "data": {"callback_query_id": "9000000004"},
                "group": True,
                "key": "b:9000000004",
                "payload": "ok",
                "target": "78",
                "thread": "9",
                "user": "7001",
            },
        )
    ],
    "button_inaccessible": [
        (
            "button",
            True,
            "cancel:7",
            {"data": {"callback_query_id": "9000000002"}, "key": "b:9000000002", "payload": "cancel:7", "target": "12"},
        )
    ],
    "button_inline": [
        (
            "button",
            True,
            "like",
            {
                "data": {"callback_query_id": "9000000003", "inline_message_id": "AAAA1"},
                "key": "b:9000000003",
                "payload": "like",
            },
        )
    ],
    "channel_post": [
        ("message", False, "announcement", {"chat": "-100777", "group": True, "key": "m:31", "user": "-100777"})
    ],
    "chat_boost": [("note", "a chat was boosted")],
    "chat_join_request": [
        (
            "unsupported",
            False,
            "hello",
            {
                "chat": "-1009876543210",
                "data": {"content": ["chat_join_request"]},
                "group": True,
                "key": "j:7001:1790000000",
                "user": "7001",
            },
        )
    ],
    "chosen_inline_result": [("note", "an inline result was chosen")],
    "command_in_the_middle": [("message", True, "say /help please", {"key": "m:506"})],
    "command_start": [("message", True, "/start ref_42", {"args": "ref_42", "command": "start", "key": "m:504"})],
    "command_without_entities": [("message", True, "/help me", {"args": "me", "command": "help", "key": "m:505"})],
    "community_chat_added": [("note", "a service message")],
    "contact": [("message", True, "", {"attachments": [("contact", "+4915112345")], "key": "m:521"})],
    "deleted_business_messages": [
        ("delete", False, "", {"chat": "7001@bc1", "key": "x:501", "target": "501", "user": "7001"}),
        ("delete", False, "", {"chat": "7001@bc1", "key": "x:502", "target": "502", "user": "7001"}),
    ],
    "dice": [("message", True, "🎲", {"key": "m:522"})],
    "direct_message": [
        ("message", True, "do you ship to Norway?", {"chat": "-1005550001111", "group": True, "key": "m:610"})
    ],
    "direct_message_of_the_channel": [
        (
            "message",
            False,
            "we do",
            {"chat": "-1005550001111", "group": True, "key": "m:611", "user": "-1009990001111"},
        )
    ],
    "document": [("message", True, "invoice", {"attachments": [("file", "d1")], "key": "m:517"})],
    "edited_business_message": [
        (
            "edit",
            False,
            "are you open now?",
            {"chat": "7001@bc1", "key": "e:546:1790000902", "target": "546", "user": "7001"},
        )
    ],
    "edited_channel_post": [
        (
            "edit",
            False,
            "announcement!",
            {"chat": "-100777", "group": True, "key": "e:31:1790000005", "target": "31", "user": "-100777"},
        )
    ],
    "edited_ephemeral": [
        (
            "edit",
            False,
            "/stock tea",
            {
                "chat": "-1009876543210",
                "group": True,
                "key": "e:0.12.1790000611:1790000620",
                "target": "0.12.1790000611",
                "user": "7001",
            },
        )
    ],
    "edited_photo": [
        (
            "edit",
            False,
            "very broken",
            {"attachments": [("image", "large")], "key": "e:529:1790000901", "target": "529"},
        )
    ],
    "edited_rich_message": [("edit", False, "Three bags", {"key": "e:609:1790000700", "target": "609"})],
    "edited_text": [("edit", False, "Where is my order 7?", {"key": "e:528:1790000900", "target": "528"})],
    "empty_update": [("note", "an update without content")],
    "ephemeral": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "user": "7001", "key": "m:0.12.1790000611"},
        )
    ],
    "ephemeral_next": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "user": "7001", "key": "m:0.13.1790000612"},
        )
    ],
    "ephemeral_reused_id": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "user": "7001", "key": "m:0.12.1790000999"},
        )
    ],
    "giveaway": [("note", "a service message")],
    "group_command": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "key": "m:531", "user": "7001"},
        )
    ],
    "group_command_for_another": [
        (
            "message",
            False,
            "/stock@other_bot",
            {"chat": "-1009876543210", "command": "stock", "group": True, "key": "m:533", "user": "7001"},
        )
    ],
    "group_command_for_us": [
        (
            "message",
            True,
            "/stock@orders_bot 7",
            {"args": "7", "chat": "-1009876543210", "command": "stock", "group": True, "key": "m:532", "user": "7001"},
        )
    ],
    "group_mention": [
        (
            "message",
            True,
            "😀 ask @Orders_Bot now",
            {"chat": "-1009876543210", "group": True, "key": "m:534", "user": "7001"},
        )
    ],
    "group_mention_of_another": [
        ("message", False, "@somebody hello", {"chat": "-1009876543210", "group": True, "key": "m:535", "user": "7001"})
    ],
    "group_plain": [
        ("message", False, "just talking", {"chat": "-1009876543210", "group": True, "key": "m:530", "user": "7001"})
    ],
    "group_reply_to_another": [
        (
            "message",
            False,
            "yes",
            {"chat": "-1009876543210", "group": True, "key": "m:538", "target": "61", "user": "7001"},
        )
    ],
    "group_reply_to_us": [
        (
            "message",
            True,
            "yes",
            {"chat": "-1009876543210", "group": True, "key": "m:537", "target": "60", "user": "7001"},
        )
    ],
    "group_text_mention": [
        ("message", True, "Orders, hello", {"chat": "-1009876543210", "group": True, "key": "m:536", "user": "7001"})
    ],
    "group_thread_without_topic": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "key": "m:540", "user": "7001"},
        )
    ],
    "guest_message": [
        (
            "message",
            True,
            "@orders_bot price?",
            {"chat": "-1009876543210@guest", "group": True, "key": "m:547", "user": "7001"},
        )
    ],
    "id_beyond_float": [
        ("message", True, "big", {"chat": "9007199254740993", "key": "m:9007199254740993", "user": "9007199254740993"})
    ],
    "inline_query": [("note", "an inline query")],
    "left_chat_member": [
        (
            "left",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"users": [{"id": "7002", "name": "Bob Byron"}]},
                "group": True,
                "key": "m:549",
                "user": "7001",
            },
        )
    ],
    "location": [("message", True, "", {"attachments": [("location", "52.52")], "key": "m:519"})],
    "lone_surrogate": [("message", True, "cut \ud83d here", {"key": "m:901"})],
    "managed_bot": [("note", "a managed bot was created or changed")],
    "managed_bot_created": [("note", "a service message")],
    "member_joined": [
        (
            "joined",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"users": [{"id": "7002", "name": "Bob Byron"}]},
                "group": True,
                "key": "c:7002:1790000063:left:member",
                "user": "7002",
            },
        )
    ],
    "member_left": [
        (
            "left",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"users": [{"id": "7002", "name": "Bob Byron"}]},
                "group": True,
                "key": "c:7002:1790000064:restricted:left",
                "user": "7002",
            },
        )
    ],
    "message_of_a_bot": [("note", "a message of a bot")],
    "migrate_from": [
        (
            "chat_migrated",
            False,
            "",
            {"chat": "-555", "group": True, "key": "g:-1009876543210", "new_chat": "-1009876543210", "user": "7001"},
        )
    ],
    "migrate_to": [
        (
            "chat_migrated",
            False,
            "",
            {"chat": "-555", "group": True, "key": "g:-1009876543210", "new_chat": "-1009876543210", "user": "7001"},
        )
    ],
    "new_chat_members": [
        (
            "joined",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"users": [{"id": "7002", "name": "Bob Byron"}, {"id": "7003", "name": "Cy Byron"}]},
                "group": True,
                "key": "m:548",
                "user": "7001",
            },
        )
    ],
    "nul_in_text": [("message", True, "a\x00b", {"key": "m:902"})],
    "photo": [("message", True, "broken", {"attachments": [("image", "large")], "key": "m:509"})],
    "pinned_message": [("note", "a service message")],
    "poll": [("message", True, "When?", {"key": "m:523"})],
    "poll_answer": [("note", "an answer to a poll")],
    "poll_option_added": [("note", "a service message")],
    "poll_option_deleted": [("note", "a service message")],
    "poll_state": [("note", "a poll changed")],
    "pre_checkout_query": [
        ("checkout", False, "1990 EUR (in the smallest unit)", {"key": "q:pq1", "payload": "order-7"})
    ],
    "pre_checkout_query_with_order_info": [
        (
            "checkout",
            False,
            "1990 EUR (in the smallest unit)",
            {
                "key": "q:pq2",
                "payload": "order-7",
                "data": {"order_info": {"name": "Ada Byron", "phone_number": "491510000000"}},
            },
        )
    ],
    "purchased_paid_media": [("note", "paid media was bought")],
    "reaction": [
        ("reaction", False, "👍", {"data": {"removed": False}, "key": "r:501:7001:1790000000::👍", "target": "501"})
    ],
    "reaction_count": [("note", "counts of anonymous reactions")],
    "reaction_custom": [
        (
            "reaction",
            False,
            "5368 paid",
            {
                "chat": "-1009876543210",
                "data": {"removed": False},
                "group": True,
                "key": "r:501:-1009876543210:1790000002::5368 paid",
                "target": "501",
                "user": "-1009876543210",
            },
        )
    ],
    "reaction_removed": [
        ("reaction", False, "", {"data": {"removed": True}, "key": "r:501:7001:1790000001:👍:", "target": "501"})
    ],
    "refunded_payment": [
        (
            "refund",
            True,
            "50 XTR (in the smallest unit)",
            {"key": "f:t3", "payload": "order-8", "data": {"charge_id": "t3"}},
        )
    ],
    "removed_chat_boost": [("note", "a boost was removed")],
    "reply": [("message", True, "this one", {"key": "m:508", "target": "507"})],
    "rich_message": [("message", True, RICH_WORDS, {"key": "m:609"})],
    "scheduled_by_the_server": [
        (
            "message",
            True,
            "/stock",
            {"chat": "-1009876543210", "command": "stock", "group": True, "user": "7001", "key": "m:0.880000115"},
        )
    ],
    "shipping_query": [("note", "a shipping query")],
    "sticker": [("message", True, "", {"attachments": [("sticker", "st1")], "key": "m:518"})],
    "stopped_message_generation": [("note", "a person stopped a draft")],
    "story": [("unsupported", True, "", {"data": {"content": ["story"]}, "key": "m:527"})],
    "subscription": [("note", "a subscription changed")],
    "successful_payment": [
        (
            "payment",
            True,
            "1990 EUR (in the smallest unit)",
            {"key": "p:t1", "payload": "order-7", "data": {"charge_id": "t1"}},
        )
    ],
    "successful_payment_in_a_group": [
        (
            "payment",
            True,
            "1990 EUR (in the smallest unit)",
            {
                "chat": "-1009876543210",
                "group": True,
                "key": "p:t2",
                "payload": "order-7",
                "data": {"charge_id": "t2"},
            },
        )
    ],
    "text": [("message", True, "Where is my order?", {"key": "m:501"})],
    "text_entities": [("message", True, "👋 hi @orders_bot see https://example.org", {"key": "m:503"})],
    "text_unicode": [("message", True, "Grüße 👩\u200d👩\u200d👧 שלום \u202eabc \u200d zalgó", {"key": "m:502"})],
    "topic_created": [("note", "a service message")],
    "topic_text": [
        (
            "message",
            False,
            "in a topic",
            {"chat": "-1009876543210", "group": True, "key": "m:539", "thread": "9", "user": "7001"},
        )
    ],
    "truncated": [("unusable", "JSON cannot be read: Expecting property name enclosed in double quotes at 51")],
    "unblocked": [
        (
            "followed",
            False,
            "",
            {"data": {"users": [{"id": "4242", "name": "Orders"}]}, "key": "c:4242:1790000059:kicked:member"},
        )
    ],
    "unknown_content": [("unsupported", True, "", {"data": {"content": ["hologram"]}, "key": "m:526"})],
    "unknown_kind": [("note", "an update of an unknown kind")],
    "unknown_kind_with_person": [
        (
            "unsupported",
            False,
            "",
            {
                "chat": "-1009876543210",
                "data": {"content": ["chat_teleport"]},
                "group": True,
                "key": "d:880000081",
                "user": "7001",
            },
        )
    ],
    "venue": [("message", True, "", {"attachments": [("location", "52.52")], "key": "m:520"})],
    "video": [("message", True, "", {"attachments": [("video", "vi1")], "key": "m:514"})],
    "video_note": [("message", True, "", {"attachments": [("video", "vn1")], "key": "m:515"})],
    "voice": [("message", True, "", {"attachments": [("voice", "v1")], "key": "m:512"})],
    "web_app_data": [("message", True, "Choose size", {"key": "m:524", "payload": '{"size":43}'})],
}

GENERIC: dict[str, list[Row]] = {
    "batch": [
        ("message", True, "1", {"key": "m:b-1", "sequence": 1}),
        ("message", True, "2", {"key": "m:b-2", "sequence": 2}),
        ("message", True, "3", {"key": "m:b-3", "sequence": 3}),
    ],
    "batch_empty": [],
    "batch_of_kinds": [
        ("message", True, "one", {"key": "m:k-1"}),
        ("button", True, "Yes", {"key": "b:k-2", "payload": "yes"}),
        ("status", "delivered", "0f1e"),
    ],
    "batch_with_a_bad_item": [
        ("message", True, "one", {"key": "m:c-1"}),
        ("unusable", "text is not text"),
        ("message", True, "three", {"key": "m:c-3"}),
    ],
    "batch_with_a_repeated_key": [
        ("message", True, "one", {"chat": "c", "key": "m:d-1", "user": "u"}),
        ("unusable", "item 1: JSON has a key twice"),
    ],
    "button": [("button", True, "Yes", {"key": "b:ev-1", "payload": "yes", "target": "out-1"})],
    "button_without_event_id": [
        ("button", True, "no", {"key": "d:msg_fixture_button_without_event_id:0", "payload": "no"})
    ],
    "contact": [("message", True, "", {"attachments": [("contact", "+491")], "key": "m:g-7"})],
    "delete": [("delete", False, "", {"key": "x:g-1", "target": "g-1"})],
    "edit": [("edit", False, "Where is my order 7?", {"key": "e:g-1#1", "target": "g-1"})],
    "edit_without_id": [("edit", False, "Where is it?", {"key": "e:g-1:2026-09-22T10:00:00Z", "target": "g-1"})],
    "empty_text": [("message", True, "", {"key": "m:g-3"})],
    "file_without_text": [
        ("message", True, "", {"attachments": [("file", "https://files.example.org/a.pdf")], "key": "m:g-5"})
    ],
    "image": [
        ("message", True, "receipt", {"attachments": [("image", "https://files.example.org/r.png")], "key": "m:g-4"})
    ],
    "location": [("message", True, "", {"attachments": [("location", "52.5")], "key": "m:g-6"})],
    "no_type": [("note", "an event of an unknown type")],
    "number_ids": [("message", True, "ids are numbers", {"chat": "-5", "key": "m:9007199254740993", "user": "77"})],
    "status_delivered": [("status", "delivered", "0f1e")],
    "status_failed": [("status", "failed", "0f1e")],
    "status_read": [("status", "read", "0f1e")],
    "status_sent": [("status", "sent", "0f1e")],
    "text": [("message", True, "Where is my order?", {"key": "m:g-1"})],
    "text_full": [
        (
            "message",
            True,
            "hi",
            {
                "chat": "room-9",
                "group": True,
                "key": "m:g-2",
                "sequence": 1,
                "target": "o-1",
                "thread": "t-1",
                "user": "cust-1",
            },
        )
    ],
    "text_is_null": [("unusable", "text is not text")],
    "truncated": [("unusable", "JSON cannot be read: a bracket is not closed at 33")],
    "unknown_type": [("note", "an event of an unknown type")],
}


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


def test_a_new_webhook_asks_for_updates_of_managed_bots() -> None:
    assert "managed_bot" in ALLOWED_UPDATES


def test_an_ephemeral_message_is_no_message_to_answer_by_number() -> None:
    """Its ``message_id`` is 0 for everybody: a reply must not name it."""
    (entry,), (press,) = parse("telegram", "ephemeral"), parse("telegram", "button_ephemeral")
    assert isinstance(entry, Entry)
    assert isinstance(press, Entry)
    assert (entry.platform_id.isdigit(), entry.order_key) == (False, None)
    assert [content.ephemeral_id(each.platform_id) for each in (entry, press)] == [(12, 1790000611), (31, 1790000000)]


def test_the_topic_of_a_channels_direct_messages_is_part_of_the_address() -> None:
    (entry,) = parse("telegram", "direct_message")
    assert isinstance(entry, Entry)
    assert entry.address["direct_topic"] == 7001


@pytest.mark.parametrize("quoted", [{}, {"message_id": 0}, {"message_id": 0, "ephemeral_message_id": 7}])
def test_a_quoted_message_without_a_key_does_not_cost_the_update_its_turn(quoted: dict[str, int]) -> None:
    assert content.quoted_key(quoted) == ""


def test_a_photo_with_an_empty_rich_message_keeps_its_caption() -> None:
    message = {"rich_message": {"blocks": []}, "caption": "our new menu"}
    assert content._words(message, {}) == "our new menu"
