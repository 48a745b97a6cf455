"""Reading what people wrote, and looking for them, leaves a trace; being refused leaves none."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from conversations.models import Audit
from tests.desk.admin.conftest import Scene, make_scene


def open_page(client: Client, name: str, *args: Any, **query: Any) -> int:
    return client.get(reverse(f"admin:conversations_{name}", args=args), query).status_code


def traces(person: User) -> list[tuple[str, Any, str, str]]:
    rows = Audit.objects.filter(staff=person, verb__in=("read", "search")).order_by("id")
    return list(rows.values_list("verb", "conversation_id", "subject", "reason"))


# Name of the page -> the row of the scene that it shows; None for a list.
OF_A_CONVERSATION = {
    "conversation_change": "conversation",
    "conversation_live": "conversation",
    "conversation_template": "conversation",
    "message_change": "message",
    "reply_change": "reply",
    "parkedmessage_changelist": None,
    "replyforstaff_changelist": None,
}


@pytest.mark.parametrize("page", OF_A_CONVERSATION)
def test_reading_words_leaves_one_trace_an_hour(anna_of_shop: Client, anna: User, shop: Scene, page: str) -> None:
    row = OF_A_CONVERSATION[page]
    for _ in range(3):
        assert open_page(anna_of_shop, page, *([shop.rows()[row].pk] if row else [])) == 200
    assert traces(anna) == [("read", shop.lane.pk, "", "")]
    assert Audit.objects.get(staff=anna).tenant_id == shop.channel.tenant_id


def test_contacts_and_quarantine_are_read_with_a_trace(anna_of_shop: Client, anna: User, shop: Scene) -> None:
    for _ in range(2):
        open_page(anna_of_shop, "contact_changelist")
        open_page(anna_of_shop, "contact_change", shop.lane.contact_id)
        open_page(anna_of_shop, "quarantine_change", shop.quarantine.pk)
    subjects = ["contacts", f"contact {shop.lane.contact_id}", f"quarantine {shop.quarantine.pk}"]
    assert traces(anna) == [("read", None, subject, "") for subject in subjects]
    assert set(Audit.objects.filter(staff=anna).values_list("tenant_id", flat=True)) == {shop.channel.tenant_id}


def test_what_was_sought_is_written_down(anna_of_shop: Client, anna: User, shop: Scene) -> None:
    for words in ("words", "words", "+49 170 1234567"):
        open_page(anna_of_shop, "conversation_changelist", q=words)
    assert traces(anna) == [("search", None, "conversations", words) for words in ("words", "+49 170 1234567")]


def test_what_cannot_be_seen_leaves_no_trace(anna_of_shop: Client, anna: User) -> None:
    theirs = make_scene("Bank")
    for page, row in OF_A_CONVERSATION.items():
        if row is not None:
            assert open_page(anna_of_shop, page, theirs.rows()[row].pk) in (302, 404)
    open_page(anna_of_shop, "quarantine_change", theirs.quarantine.pk)
    assert traces(anna) == []


# ---------------------------------------------------------------- numbers that are none

HUGE = "9" * 23


@pytest.mark.parametrize("address", [
    f"/api/conversations/{HUGE}/",
    f"/admin/conversations/message/?channel={'9' * 5_000}",
    "/admin/conversations/quarantine/?channel=²",
    f"/admin/conversations/quarantine/?channel={HUGE}",
    f"/admin/conversations/audit/?who={HUGE}&tenant={HUGE}",
    f"/admin/conversations/contact/?before={HUGE}",
    f"/admin/conversations/conversation/{HUGE}/change/",
    f"/admin/conversations/conversation/{HUGE}/live/",
])  # fmt: skip
def test_a_number_that_fits_no_row_is_no_fault_of_ours(chief: Client, address: str) -> None:
    assert chief.get(address).status_code in (200, 302, 404)


@pytest.mark.parametrize("number", ["1" + "0" * 30, "²", "-1", "", "9" * 5_000])
def test_a_form_with_such_a_number_is_refused_in_words(chief: Client, shop: Scene, number: str) -> None:
    address = reverse("admin:conversations_conversation_retry", args=[shop.lane.pk])
    answer = chief.post(address, {"epoch": number, "next_sequence": 1}, follow=True)
    assert "does not say what the page showed" in " ".join(map(str, answer.context["messages"]))
