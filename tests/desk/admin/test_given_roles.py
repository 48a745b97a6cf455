"""What a given role does: words that are none, refusals, bots of several tenants, rows from before, buttons."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from conversations.desk.access import Role
from conversations.models import App, Audit, Channel, Conversation, Pause, TenantStaff
from conversations.postgres.sql_files import sql
from tests.desk.admin.conftest import Scene, entered, make_scene
from tests.desk.admin.test_roles import ADMIN, FORM, ROLES, address_of, call, is_verb, person_with, rule
from tests.kit.desk_scenes import make_staff


def test_a_word_that_is_no_role_allows_nothing(shop: Scene, anna: User) -> None:
    for word in ("superuser", "nobody", "AGENT", ""):
        TenantStaff.objects.update_or_create(tenant=shop.channel.tenant, staff=anna, defaults={"role": word})
        assert call(entered(anna), "conversations_conversation_change", shop) == 404
        assert entered(anna).get("/api/stuck/").status_code == 403


def test_an_app_of_all_tenants_and_what_its_webhooks_brought_are_for_superusers(shop: Scene, chief: Client) -> None:
    staff = entered(person_with(Role.TENANT_ADMIN, shop))
    Channel.objects.filter(pk=shop.channel.pk).update(app=shop.app)
    pages = [f"admin:conversations_{name}_change" for name in ("app", "quarantine")]
    addresses = [reverse(page, args=[row.pk]) for page, row in zip(pages, (shop.app, shop.quarantine), strict=True)]
    assert [staff.get(address).status_code for address in addresses] == [200, 200]
    App.objects.update(tenant=None)
    assert [staff.get(address).status_code for address in addresses] == [404, 404]
    assert [chief.get(address).status_code for address in addresses] == [200, 200]


def test_a_refusal_says_which_role_is_missing(shop: Scene) -> None:
    client = entered(person_with(Role.READ_ONLY, shop))
    page = client.get(reverse("admin:conversations_worker_changelist"))
    assert page.status_code == 403
    assert "This needs the role <b>superuser</b>. Your role here is <b>read-only</b>." in page.content.decode()
    answer = client.post(address_of("conversations_conversation_take_over", shop), FORM)
    assert answer.status_code == 403
    text = " ".join(answer.content.decode().split())
    assert "This needs the role <b>agent</b>. Your role here is <b>read-only</b>. Nothing was changed." in text


def test_a_pause_of_a_bot_needs_its_role_in_every_tenant_that_the_bot_answers_for(shop: Scene) -> None:
    bank = make_scene("Bank")
    Channel.objects.update(bot="echo")
    pause = Pause.objects.create(scope="bot", target="echo", stops="handling", since=shop.pause.since)
    person = person_with(Role.TENANT_ADMIN, shop)
    given = TenantStaff.objects.create(tenant=bank.channel.tenant, staff=person, role="agent")
    address = reverse("admin:conversations_pause_end", args=[pause.pk])
    assert entered(person).post(address, {"since": pause.since.isoformat()}).status_code == 403
    assert Pause.objects.filter(pk=pause.pk).exists()
    TenantStaff.objects.filter(pk=given.pk).update(role="tenant_admin")
    assert entered(person).post(address, {"since": pause.since.isoformat()}).status_code == 302
    assert not Pause.objects.filter(pk=pause.pk).exists()


def test_a_pause_of_a_whole_tenant_is_ended_by_superusers_only(shop: Scene) -> None:
    target = str(shop.channel.tenant_id)
    pause = Pause.objects.create(scope="tenant", target=target, stops="handling", since=shop.pause.since, by_staff=True)
    address, form = reverse("admin:conversations_pause_end", args=[pause.pk]), {"since": pause.since.isoformat()}
    page = reverse("admin:conversations_pause_change", args=[pause.pk])
    own, chief = (entered(person_with(role, shop)) for role in (Role.TENANT_ADMIN, Role.SUPERUSER))
    assert own.post(address, form).status_code == 403
    assert Pause.objects.filter(pk=pause.pk).exists()
    assert [address in client.get(page).content.decode() for client in (own, chief)] == [False, True]
    assert chief.post(address, form).status_code == 302
    assert not Pause.objects.filter(pk=pause.pk).exists()


def test_the_migration_leaves_everybody_the_power_that_they_had(shop: Scene) -> None:
    """Who held ``change_channel``, of their own or by a group, is a tenant admin; everybody else is an agent."""
    people = [make_staff(name) for name in ("anna", "berta", "carla")]
    change = Permission.objects.get(codename="change_channel")
    people[0].user_permissions.add(change)
    group = Group.objects.create(name="chiefs")
    group.permissions.add(change)
    people[1].groups.add(group)
    people[2].user_permissions.add(Permission.objects.get(codename="view_channel"))
    for person in people:
        TenantStaff.objects.create(tenant=shop.channel.tenant, staff=person)
    with connection.cursor() as cursor:
        cursor.execute(sql("staff_roles"))
    given = dict(TenantStaff.objects.values_list("staff__username", "role"))
    assert given == {"anna": "tenant_admin", "berta": "tenant_admin", "carla": "agent"}


# ---------------------------------------------------------------- buttons


@pytest.mark.parametrize("model", ["conversation", "message", "reply", "channel", "pause", "quarantine"])
@pytest.mark.parametrize("role", ROLES[1:], ids=str)
def test_a_page_shows_the_buttons_that_its_reader_may_press(shop: Scene, role: Role, model: str) -> None:
    Conversation.objects.filter(pk=shop.lane.pk).update(mode="human")
    client = entered(person_with(role, shop))
    page = client.get(reverse(f"admin:conversations_{model}_change", args=[shop.rows()[model].pk])).content.decode()
    for name in filter(is_verb, ADMIN):
        if f'action="{address_of(name, shop)}"' in page:
            assert role >= rule(name), name
    least = Role.TENANT_ADMIN if model in ("channel", "pause") else Role.AGENT
    assert ('class="button' in page or "<button" in page.partition("<article")[2]) == (role >= least)


def test_changes_of_users_and_groups_are_in_the_audit(chief: Client) -> None:
    def traces() -> list[tuple[str, str, str]]:
        rows = Audit.objects.filter(staff__username="chief").exclude(verb="read").order_by("id")
        return list(rows.values_list("verb", "subject", "reason"))

    secret = "correct horse battery staple"
    added = {"username": "mallory", "password1": secret, "password2": secret, "usable_password": "true"}
    chief.post(reverse("admin:auth_user_add"), added)
    mallory = User.objects.get(username="mallory")
    form = {"username": "mallory", "is_active": "on", "is_superuser": "on",
            "date_joined_0": "2026-11-29", "date_joined_1": "12:00:00"}  # fmt: skip
    chief.post(reverse("admin:auth_user_change", args=[mallory.pk]), form)
    chief.post(reverse("admin:auth_group_add"), {"name": "team"})
    groups = {"action": "delete_selected", "_selected_action": Group.objects.get().pk, "post": "yes"}
    chief.post(reverse("admin:auth_group_changelist"), groups)
    found = traces()
    assert [each[:2] for each in found] == [
        ("add user", "user mallory"), ("change user", "user mallory"), ("add group", "group team"),
        ("delete group", "group team"),
    ]  # fmt: skip
    assert "Superuser status" in found[1][2]
    assert not Audit.objects.filter(reason__contains=secret).exists()
