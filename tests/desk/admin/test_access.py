"""Who sees what: every address of the admin, as staff of another tenant."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import NoReverseMatch, reverse

from conversations.desk.admin.windows import Window
from conversations.models import Audit, Conversation, TenantStaff
from tests.desk.admin.conftest import Scene, entered, make_scene

WINDOWS = [window for window in admin.site._registry.values() if isinstance(window, Window)]
FOR_SUPERUSERS = {"worker", "tenantstaff"}


def addresses_of(scene: Scene) -> list[str]:
    """Every address that names a row of ``scene``, verbs included."""
    found = []
    for window in WINDOWS:
        row = scene.rows().get(window.opts.model_name or "")
        if row is not None:
            names = ["change", "delete", "history", "live", *window.verbs]
            found += [address for name in names if (address := address_of(window, name, row))]
    return [*found, reverse("admin:conversations_conversation_file", args=[scene.lane.pk, scene.file.pk])]


def address_of(window: Window, name: str, row: Any) -> str:
    try:
        return reverse(f"admin:conversations_{window.opts.model_name}_{name}", args=[row.pk])
    except NoReverseMatch:
        return ""


def test_every_window_is_walked(shop: Scene) -> None:
    assert {window.opts.model_name for window in WINDOWS} == set(shop.rows()) | FOR_SUPERUSERS
    assert len(addresses_of(shop)) > 50


@pytest.mark.parametrize("method", ["get", "post"])
def test_rows_of_another_tenant_are_not_there(anna_of_shop: Client, method: str) -> None:
    theirs = make_scene("Bank", "their words")
    before = Conversation.objects.get(pk=theirs.lane.pk)
    for address in addresses_of(theirs):
        answer = getattr(anna_of_shop, method)(address, {"epoch": 0, "next_sequence": 1, "note": "x", "text": "x"})
        assert answer.status_code in (403, 404, 405), address
        assert b"their words" not in answer.content
    assert Conversation.objects.filter(pk=before.pk, epoch=before.epoch, mode=before.mode, paused_at=None).exists()
    assert not Audit.objects.filter(conversation_id=before.pk).exclude(pk=theirs.audit.pk).exists()


def test_lists_hold_nothing_of_another_tenant(anna_of_shop: Client) -> None:
    make_scene("Bank", "theirs")
    for window in WINDOWS:
        answer = anna_of_shop.get(reverse(f"admin:conversations_{window.opts.model_name}_changelist"), follow=True)
        assert answer.status_code == (403 if window.opts.model_name in FOR_SUPERUSERS else 200)
        assert b"theirs" not in answer.content
    assert b"theirs" not in anna_of_shop.get(reverse("admin:index")).content


def test_searching_finds_nothing_of_another_tenant(anna_of_shop: Client) -> None:
    theirs = make_scene("Bank", "theirs")
    for text in ("theirs", theirs.lane.chat, str(theirs.lane.pk), theirs.message.trace):
        answer = anna_of_shop.get(reverse("admin:conversations_conversation_changelist"), {"q": text})
        assert answer.context["cl"].result_list == []


def test_a_lookup_in_the_address_is_refused(anna_of_shop: Client) -> None:
    for lookup in ({"channel__sealed__icontains": "a"}, {"contact__phone__startswith": "4"}, {"id__gt": "0"}):
        answer = anna_of_shop.get(reverse("admin:conversations_conversation_changelist"), lookup)
        assert answer.status_code == 400


def test_staff_without_a_tenant_see_nothing(anna: User, shop: Scene) -> None:
    client = entered(anna)
    for address in addresses_of(shop):
        assert client.get(address).status_code in (403, 404, 405), address
    answer = client.get(reverse("admin:index"))
    assert b"You have not been given a tenant yet" in answer.content


def test_nobody_without_staff_rights_enters(shop: Scene) -> None:
    stranger = entered(User.objects.create_user("stranger"))
    for client in (stranger, Client()):
        for address in addresses_of(shop):
            answer = client.post(address)
            assert (answer.status_code, "/login/" in answer.headers.get("Location", "")) == (302, True), address


def test_rows_are_read_only(chief: Client, shop: Scene) -> None:
    for window in WINDOWS:
        row = shop.rows().get(window.opts.model_name or "")
        if row is not None:
            assert chief.post(address_of(window, "delete", row), {"post": "yes"}).status_code == 403
            add = chief.get(reverse(f"admin:conversations_{window.opts.model_name}_add"))
            assert add.status_code == 403, window.opts.model_name


def test_superusers_give_roles(chief: Client, anna: User, shop: Scene) -> None:
    page = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    add, form = reverse("admin:conversations_tenantstaff_add"), {"staff": anna.pk, "tenant": shop.channel.tenant_id}
    assert "This field is required" in chief.post(add, form).content.decode()  # a role is chosen, never preset
    assert chief.post(add, {**form, "role": "superuser"}).status_code == 200
    assert not TenantStaff.objects.exists()
    assert chief.post(add, {**form, "role": "read_only"}).status_code == 302
    assert entered(anna).get(page).status_code == 200
    given = TenantStaff.objects.get()
    change = reverse("admin:conversations_tenantstaff_change", args=[given.pk])
    assert chief.post(change, {"role": "agent"}).status_code == 302
    assert TenantStaff.objects.get().role == "agent"
    chief.post(reverse("admin:conversations_tenantstaff_delete", args=[given.pk]), {"post": "yes"})
    assert entered(anna).get(page).status_code == 404
    entries = Audit.objects.filter(verb__in=["give_role", "take_role"]).order_by("id")
    assert [(entry.subject, entry.changes["role"]) for entry in entries] == [
        ("anna in Shop", [None, "read_only"]),
        ("anna in Shop", ["read_only", "agent"]),
        ("anna in Shop", ["agent", None]),
    ]
