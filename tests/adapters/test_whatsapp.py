"""Who wrote to WhatsApp, what was said around it, and that no kind of event is unknown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.meta.whatsapp_updates import NOTED, READERS
from conversations.contracts import Entry, Note, Parsed, Scope, StatusUpdate, TemplateUpdate, Unusable
from tests.kit.fixtures import FIXTURES, channel, entry, incoming, names, parse

PHONE = "4915112345678"


def entries(parsed: list[Parsed]) -> list[Entry]:
    return [each for each in parsed if isinstance(each, Entry)]


def parse_body(body: Any) -> list[Parsed]:
    return WhatsApp().parse(channel("whatsapp"), incoming(json.dumps(body).encode()))


def words(text: str) -> list[str]:
    return text.split()


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
    found = entry("whatsapp", name)
    assert (set(found.sender.aliases), found.sender.phone, dict(found.address)) == PEOPLE[name]


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
    assert entry("whatsapp", "of_another_number", phone_number_id="").channel_ref == ""
    (status,) = parse("whatsapp", "status_sent", phone_number_id="1")
    assert isinstance(status, StatusUpdate)
    assert status.channel_ref == "555000111222333"


def test_a_failed_status_says_why_in_plain_words() -> None:
    (status,) = parse("whatsapp", "status_failed")
    assert isinstance(status, StatusUpdate)
    why = "more than 24 hours since the person's last message: only a template can be sent"
    assert status.error == f"131047 {why} (More than 24 hours have passed.)"
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
    statuses = ("sent", "delivered", "read", "played", "failed")
    assert [word for word in statuses if f'"status": "{word}"' not in said] == []


def test_a_noted_value_is_not_decoded_however_large() -> None:
    """A history holds thousands of messages: it must neither cost memory nor fill the quarantine."""
    history = {"history": [{"threads": [{"id": str(each)} for each in range(6000)]}]}
    change = {"field": "history", "value": history}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    assert [type(each) for each in parse_body(body)] == [Note]
