"""Every WhatsApp fixture and how it reads, who wrote it, and that no kind of event is unknown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.meta.whatsapp_updates import NOTED, READERS
from conversations.contracts import Entry, Note, Parsed, Scope, StatusUpdate, TemplateUpdate, Unusable
from tests.adapters.test_fixtures import Row, read
from tests.kit.fixtures import FIXTURES, channel, incoming, names, parse

PHONE = "4915112345678"
MINE: dict[str, Any] = {"user": "DE.7001", "chat": "DE.7001"}
ON: dict[str, Any] = {"target": "wamid.OUT1"}
FILE = ("900100",)


def message(key: int, text: str = "hi", **more: Any) -> Row:
    return ("message", True, text, {"key": f"m:wamid.IN{key:03}", **more})


def said(kind: str, key: str, text: str = "", turn: bool = False, **more: Any) -> Row:
    return (kind, turn, text, {"key": key, **more})


def file(key: int, kind: str, text: str = "") -> Row:
    return message(key, text, attachments=[(kind, "900100")])


def unsupported(key: int, content: str) -> Row:
    return said("unsupported", f"m:wamid.IN{key:03}", turn=True, data={"content": [content]})


def moved(key: int, user: str, new: str) -> Row:
    return said("chat_migrated", f"g:wamid.IN{key:03}", user=user, chat=user, new_chat=new)


def entries(parsed: list[Parsed]) -> list[Entry]:
    return [each for each in parsed if isinstance(each, Entry)]


def parse_body(body: Any) -> list[Parsed]:
    return WhatsApp().parse(channel("whatsapp"), incoming(json.dumps(body).encode()))


def words(text: str) -> list[str]:
    return text.split()


BOB: dict[str, Any] = {"user": "BR.7002", "chat": "BR.7002"}
ALONE: dict[str, Any] = {"user": PHONE, "chat": PHONE}
EDITED: dict[str, Any] = {"target": "wamid.IN001"}

TABLE: dict[str, list[Row]] = {
    "about_a_product": [message(15, "still there?", **ON)],
    "audio": [file(22, "audio")],
    "batch": [
        message(61, "first"),
        message(62, "second"),
        said("button", "b:wamid.IN063", "Sim", True, payload="yes", **BOB, **ON),
        ("status", "delivered", ""),
        ("status", "read", ""),
    ],
    "batch_of_two_numbers": [message(72, "ours"), message(73, "theirs")],
    "batch_with_a_bad_change": [
        message(70, "first"),
        ("unusable", "JSON cannot be read: '{' is missing at 0"),
        message(71, "third"),
    ],
    "batch_with_a_bad_item": [message(64, "first"), ("unusable", "body is missing"), message(66, "third")],
    "batch_with_a_repeated_key": [message(67, "first"), ("unusable", "JSON has a key twice"), message(69, "third")],
    "button": [said("button", "b:wamid.IN029", "Yes, please", True, payload="confirm:7", **ON)],
    "call_permission": [said("button", "b:wamid.IN033", "accept", True, payload="accept", **ON)],
    "change_without_content": [("note", "a change of an unknown field, or without content")],
    "change_without_value": [("note", "a change of an unknown field, or without content")],
    "contact_that_we_asked_for": [message(28, "", attachments=[("contact", "+49 151 12345678")])],
    "contacts": [message(27, "", attachments=[("contact", "+49 151 1"), ("contact", "None")])],
    "document": [file(24, "file", "invoice")],
    "echo": [("note", "a person wrote on the business's own phone")],
    "edit": [said("edit", "e:wamid.IN039", "Where is my order 7?", **EDITED)],
    "edit_of_a_picture": [said("edit", "e:wamid.IN040", "very broken", attachments=[("image", "900100")], **EDITED)],
    "edit_unknown": [said("edit", "e:wamid.IN041", data={"content": ["hologram"]}, **EDITED)],
    "fault_of_the_account": [
        (
            "note",
            "a fault of the account: 0 the access token is not valid (We were unable to authenticate the app user)",
        )
    ],
    "flow": [said("button", "b:wamid.IN032", "Sent", True, payload='{"flow_token": "t", "size": "43"}', **ON)],
    "forwarded": [message(14, "look")],
    "from_an_ad": [message(16, "hello")],
    "group": [message(53, "in a group", chat="group:g-55", group=True)],
    "identity_changed": [("note", "a system message")],
    "image": [file(17, "image", "broken")],
    "image_escaped": [file(18, "image", "grün 🍵")],
    "image_with_its_url": [file(19, "image")],
    "interactive_unknown": [unsupported(34, "interactive hologram_reply")],
    "list": [said("button", "b:wamid.IN030", "9 to 10", True, payload="slot:9", **ON)],
    "location": [message(26, "", attachments=[("location", "52.52")])],
    "lone_surrogate": [message(55, "cut \ud83d here")],
    "marketing_stopped": [
        said(
            "unsupported",
            "p:marketing_messages:stop:1790000700000",
            "User requested to stop marketing messages",
            data={"content": ["user_preferences"]},
        )
    ],
    "message_without_id": [("unusable", "id is missing")],
    "no_entry": [("note", "a change of an unknown field, or without content")],
    "nul_in_text": [message(54, "a\x00b")],
    "number_changed": [moved(48, PHONE, "4917099999999")],
    "number_changed_to_nothing": [("unusable", "a change of number without the new one")],
    "number_changed_without_a_user_id": [moved(49, PHONE, "4917099999999")],
    "of_another_number": [message(59)],
    "of_another_object": [("unusable", "an event of page, not of WhatsApp")],
    "opened_the_chat": [said("followed", "f:wamid.IN047")],
    "order": [message(38, "soon please")],
    "reaction": [said("reaction", "r:wamid.IN035", "👍", data={"removed": False}, **ON)],
    "reaction_emptied": [said("reaction", "r:wamid.IN037", data={"removed": True}, **ON)],
    "reaction_removed": [said("reaction", "r:wamid.IN036", data={"removed": True}, **ON)],
    "reply": [message(13, "this one", **ON)],
    "revoke": [said("delete", "x:wamid.IN042", **EDITED)],
    "status_delivered": [("status", "delivered", "0f1e")],
    "status_failed": [("status", "failed", "0f1e")],
    "status_failed_bare": [("status", "failed", "")],
    "status_in_a_group": [("status", "delivered", "")],
    "status_played": [("status", "read", "")],
    "status_read": [("status", "read", "")],
    "status_sent": [("status", "sent", "0f1e")],
    "status_unknown": [("note", "a status of an unknown kind")],
    "sticker": [file(25, "sticker")],
    "template_button": [said("button", "b:wamid.IN031", "Track", True, payload="track", **ON)],
    "template_category": [("note", "a template's category changes")],
    "template_content": [("note", "a template's content changed")],
    "template_quality": [("note", "a template's quality changed")],
    "template_status": [("note", "a template's status changed")],
    "text": [message(1, "Where is my order?")],
    "text_bsuid_in_from": [message(3)],
    "text_bsuid_only": [message(2)],
    "text_contacts_in_another_order": [message(10), message(11, "oi", **BOB)],
    "text_in_milliseconds": [message(12)],
    "text_matched_by_phone": [message(5)],
    "text_number_rewritten": [message(6, "oi", **BOB)],
    "text_phone_only": [message(4, **ALONE)],
    "text_two_people_one_contact": [message(8), message(9, "oi", user="551199990000", chat="551199990000")],
    "text_without_contacts": [message(7)],
    "truncated": [("unusable", "JSON cannot be read: a bracket is not closed at 46")],
    "unknown_field": [("note", "a change of an unknown field, or without content")],
    "unknown_field_with_messages": [("unusable", "messages in the field telepathy, which is not known")],
    "unknown_type": [unsupported(46, "hologram")],
    "unsupported": [unsupported(43, "unsupported")],
    "unsupported_named": [unsupported(44, "poll")],
    "user_id_changed": [moved(50, "DE.7001", "DE.8001")],
    "video": [file(23, "video")],
    "video_too_large": [unsupported(45, "video")],
    "voice": [file(20, "voice")],
    "voice_of_old_webhooks": [file(21, "voice")],
    "without_metadata": [("unusable", "metadata is missing")],
}


def whole(row: Row) -> Row:
    return (*row[:3], {**MINE, **row[3]}) if len(row) == 4 else row


@pytest.mark.parametrize("name", names("whatsapp"))
def test_whatsapp_reads_each_fixture(name: str) -> None:
    assert [read("whatsapp", each) for each in parse("whatsapp", name)] == [whole(row) for row in TABLE[name]]


# ---------------------------------------------------------------- who, where, when

# Fixture -> aliases, phone, and whom a reply goes to.
PEOPLE: dict[str, tuple[set[str], str, dict[str, Any]]] = {
    "text": ({PHONE}, PHONE, {"to": PHONE, "recipient": "DE.7001"}),
    "text_bsuid_only": (set(), "", {"to": None, "recipient": "DE.7001"}),
    "text_bsuid_in_from": (set(), "", {"to": None, "recipient": "DE.7001"}),
    "text_matched_by_phone": ({PHONE}, PHONE, {"to": PHONE, "recipient": "DE.7001"}),
    "text_phone_only": ({PHONE}, PHONE, {"to": PHONE}),
    "text_without_contacts": ({PHONE}, PHONE, {"to": PHONE, "recipient": "DE.7001"}),
    # No record of this webhook holds the number in ``from`` and the BSUID: it is no alias.
    "text_number_rewritten": ({"5511999990000"}, "551199990000", {"to": "551199990000", "recipient": "BR.7002"}),
    "number_changed": ({PHONE}, "4917099999999", {"to": "4917099999999", "recipient": "DE.8001"}),
    "number_changed_without_a_user_id": ({PHONE}, "4917099999999", {"to": "4917099999999", "recipient": None}),
    "user_id_changed": (set(), "", {"to": None, "recipient": "DE.8001"}),
    "group": ({PHONE}, PHONE, {"group": "g-55"}),
}


@pytest.mark.parametrize("name", PEOPLE)
def test_ids_are_paired_only_where_one_record_holds_both(name: str) -> None:
    (entry,) = parse("whatsapp", name)
    assert isinstance(entry, Entry)
    assert (set(entry.sender.aliases), entry.sender.phone, dict(entry.address)) == PEOPLE[name]


def test_a_change_of_number_names_all_new_ids() -> None:
    changes = ("number_changed", "number_changed_without_a_user_id", "user_id_changed")
    new = [each.new_ids for name in changes for each in entries(parse("whatsapp", name))]
    assert new == [("DE.8001", "4917099999999"), ("4917099999999",), ("DE.8001",)]


def test_times_are_milliseconds_however_they_come() -> None:
    times = [each.order_key for name in ("text", "text_in_milliseconds") for each in entries(parse("whatsapp", name))]
    assert times == [1790000001000, 1790000007123]


def test_what_came_to_another_number_of_the_app_says_so() -> None:
    assert [each.channel_ref for each in entries(parse("whatsapp", "batch_of_two_numbers"))] == ["", "555000111222444"]
    for name in ("batch_with_a_bad_item", "batch_with_a_repeated_key"):
        refs = {getattr(each, "channel_ref", "") for each in parse("whatsapp", name, phone_number_id="1")}
        assert refs == {"555000111222333"}
    (alone,) = parse("whatsapp", "of_another_number", phone_number_id="")
    assert isinstance(alone, Entry)
    assert alone.channel_ref == ""
    (status,) = parse("whatsapp", "status_sent", phone_number_id="1")
    assert isinstance(status, StatusUpdate)
    assert status.channel_ref == "555000111222333"


def test_a_failed_status_says_why_in_plain_words() -> None:
    (status,) = parse("whatsapp", "status_failed")
    assert isinstance(status, StatusUpdate)
    assert status.error == (
        "131047 more than 24 hours since the person's last message: only a template can be sent"
        " (More than 24 hours have passed.)"
    )
    assert (status.platform_id, status.chat, status.scope) == ("wamid.OUT1", "DE.7001", Scope.WINDOW)


REPORTS: dict[str, dict[str, str]] = {
    "template_status": {"status": "paused"},
    "template_quality": {"quality": "red"},
    "template_content": {},
    "template_category": {},
}


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_said_of_a_template_is_read_with_its_time(name: str) -> None:
    about: dict[str, Any] = {"account": "777000111222333", "name": "order_shipped", "language": "de_DE"}
    report = TemplateUpdate(**about, at=1790001000, **REPORTS[name])
    assert [each.template for each in parse("whatsapp", name) if isinstance(each, Note)] == [report]


def test_a_report_that_cannot_be_read_keeps_its_own_bytes() -> None:
    change = {"field": "message_template_status_update", "value": {"message_template_name": []}}
    entry = {"id": "1", "changes": [change, {"field": "history", "value": {}}]}
    parsed = parse_body({"object": "whatsapp_business_account", "entry": [entry]})
    assert parsed[0] == Unusable(reason="message_template_name is not text", raw=json.dumps(change).encode())
    assert isinstance(parsed[1], Note)


def test_what_surrounds_a_message_is_kept() -> None:
    named = words("forwarded about_a_product from_an_ad image order list location video_too_large")
    kept = {name: dict(entries(parse("whatsapp", name))[0].data) for name in named}
    assert kept["forwarded"] == {"forwarded": True, "frequently_forwarded": True}
    assert kept["about_a_product"]["referred_product"]["product_retailer_id"] == "tea"
    assert kept["from_an_ad"]["referral"]["ctwa_clid"] == "abc"
    assert kept["image"] == {"file": {"sha256": "m04pFf2ERdaopTyFkGPA0+bX3i+YY2dYgVFwOgDLSDI="}}
    assert kept["order"]["order"]["product_items"][0]["quantity"] == 2
    assert kept["list"] == {"list_reply": {"description": "Thursday"}}
    assert kept["location"]["location"]["address"] == "12 High St"
    assert kept["video_too_large"]["errors"][0]["code"] == 131052


# ---------------------------------------------------------------- nothing is unknown

# From Meta's pages: fields to subscribe to, types of messages, answers and system messages, and statuses.
FIELDS = words("""
messages smb_message_echoes smb_app_state_sync history user_preferences calls account_update
account_alerts account_review_update account_settings_update business_capability_update
phone_number_quality_update phone_number_name_update message_template_status_update
message_template_quality_update message_template_components_update template_category_update
business_username_updates group_lifecycle_update group_participants_update group_settings_update
group_status_update flows security payment_configuration_update partner_solutions tracking_events
messaging_handovers
""")
TYPES = words("""
text image video audio document sticker voice location contacts interactive button reaction order
system edit revoke unsupported button_reply list_reply nfm_reply call_permission_reply user_changed_number
user_changed_user_id
""")


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_is_read_or_noted_on_purpose(field: str) -> None:
    assert (field in NOTED) is not any(field == read_field for read_field, _ in READERS)
    body = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": field, "value": {}}]}]}
    (note,) = WhatsApp().parse(channel("whatsapp"), incoming(json.dumps(body).encode()))
    assert isinstance(note, Note)
    assert note.reason == NOTED.get(field, note.reason)


def test_each_type_and_status_has_a_fixture() -> None:
    said = "".join((FIXTURES / "whatsapp" / f"{name}.json").read_text() for name in names("whatsapp"))
    assert [word for word in TYPES if f'"type": "{word}"' not in said] == []
    assert [
        word for word in ("sent", "delivered", "read", "played", "failed") if f'"status": "{word}"' not in said
    ] == []


def test_a_noted_value_is_not_decoded_however_large() -> None:
    """A history holds thousands of messages: it must neither cost memory nor fill the quarantine."""
    history = {"history": [{"threads": [{"id": str(each)} for each in range(6000)]}]}
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": "1", "changes": [{"field": "history", "value": history}]}],
    }
    assert [type(each) for each in parse_body(body)] == [Note]
