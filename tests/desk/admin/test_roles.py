"""Every address of the admin and the API, and every action, as each role and as staff of another tenant.

The addresses come from the URL resolver and the actions from ``access.LEAST``: one that is new and has no rule fails.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from conversations.desk import access, actions
from conversations.desk.access import LEAST, Role
from conversations.desk.admin.windows import Window
from conversations.models import Audit, Channel, Conversation, Pause, TenantStaff
from conversations.postgres.sql_files import sql
from tests.desk.admin.conftest import Scene, entered, make_scene
from tests.kit.desk_scenes import make_staff

PAGES = {"see", "see_workers", "give_roles"}
ROLES = (Role.NOBODY, Role.READ_ONLY, Role.AGENT, Role.TENANT_ADMIN, Role.SUPERUSER)

# Addresses outside the admin and the API: for platforms, visitors and monitors. They have their own tests.
PUBLIC = ("webhooks/", "bots/", "chat/", "web/", "widget.js", "healthz", "metrics")
# Addresses of Django's own admin site -> least role; those of people who may log in are for NOBODY.
SITE = {
    **dict.fromkeys(("index", "login", "logout", "password_change", "password_change_done", "jsi18n"), Role.NOBODY),
    **dict.fromkeys(("app_list", "autocomplete", "view_on_site", "catch_all"), Role.READ_ONLY),
}
WINDOW_PAGES = {"changelist", "change", "live"}  # open with the window's action; all other pages change rows


def routes() -> list[tuple[str, URLPattern]]:
    """Every route of the project, with its whole path."""

    def below(patterns: Any, prefix: str) -> Iterator[tuple[str, URLPattern]]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from below(pattern.url_patterns, prefix + str(pattern.pattern))
            else:
                yield prefix + str(pattern.pattern).removeprefix("^").removeprefix("\\A"), pattern

    return list(below(get_resolver().url_patterns, ""))


def admin_names() -> list[str]:
    found = [pattern.name or "catch_all" for path, pattern in routes() if path.startswith(settings.ADMIN_PATH)]
    return [name for name in found if not name.endswith("_list") or name == "app_list"]


ADMIN = sorted(set(admin_names()))
MODELS = {f"{one.opts.app_label}_{one.opts.model_name}": one for one in admin.site._registry.values()}


def rule(name: str) -> Role:
    """The least role of an address. Raises ``KeyError`` for one without a rule."""
    if name in SITE:
        return SITE[name]
    if name == "auth_user_password_change":
        return Role.SUPERUSER
    model, _, page = next((model, "", name[len(model) + 1 :]) for model in MODELS if name.startswith(model + "_"))
    window = MODELS[model]
    if not isinstance(window, Window):
        return Role.SUPERUSER
    if page in window.verbs:
        return LEAST[window.verbs[page]]
    if page in WINDOW_PAGES:
        return LEAST[window.action]
    return {"add": Role.SUPERUSER, "delete": Role.SUPERUSER, "history": Role.SUPERUSER}[page]


def person_with(role: Role, scene: Scene, name: str = "") -> User:
    if role is Role.SUPERUSER:
        return User.objects.create_superuser(name or "chief")
    person = make_staff(name or role.name.lower())
    if role is not Role.NOBODY:
        TenantStaff.objects.create(tenant=scene.channel.tenant, staff=person, role=role.name.lower())
    return person


def rows_of(scene: Scene) -> dict[str, Any]:
    given = TenantStaff.objects.filter(tenant=scene.channel.tenant).first()
    return {f"conversations_{name}": row for name, row in scene.rows().items()} | {
        "conversations_worker": scene.worker,
        "conversations_tenantstaff": given,
        "auth_user": User.objects.order_by("pk").first(),
    }


def address_of(name: str, scene: Scene) -> str:
    """The address of a name, for the scene's row where it names one."""
    if name in ("catch_all", "view_on_site"):
        return reverse("admin:index") + ("nowhere" if name == "catch_all" else "r/1/1/")
    if name == "app_list":
        return reverse("admin:app_list", args=["conversations"])
    model = next((model for model in MODELS if name.startswith(model + "_")), "")
    row = rows_of(scene).get(model)
    argued = model and not name.endswith(("_changelist", "_add"))
    return reverse(f"admin:{name}", args=[getattr(row, "pk", 1)] if argued else [])


def is_verb(name: str) -> bool:
    return any(
        name == f"{model}_{verb}" for model, one in MODELS.items() if isinstance(one, Window) for verb in one.verbs
    )


FORM = {"epoch": 0, "next_sequence": 1, "last_sequence": 2, "note": "x", "text": "x", "rest": "bot", "number": 1}


def call(client: Client, name: str, scene: Scene) -> int:
    form = {**FORM, "since": scene.pause.since.isoformat(), "new_secret": "whsec_" + "a" * 24}
    address = address_of(name, scene)
    return client.post(address, form).status_code if is_verb(name) else client.get(address).status_code


def state_of_everything() -> list[Any]:
    """All rows that a verb could change; reading is written down, and allowed to all who see."""
    with connection.cursor() as cursor:
        found: list[Any] = []
        for table in ("conversation", "message", "reply", "channel", "pause", "quarantine", "desk", "tenant_staff"):
            cursor.execute(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t")
            found.append((table, cursor.fetchone()))
    return [*found, Audit.objects.exclude(verb="read").count()]


# ---------------------------------------------------------------- every address has a rule


def test_every_verb_of_staff_has_a_least_role() -> None:
    verbs = {
        name
        for name, function in vars(actions).items()
        if inspect.isfunction(function)
        and function.__module__ == actions.__name__
        and not name.startswith("_")
        and "staff" in inspect.signature(function).parameters
    }
    assert verbs == set(LEAST) - PAGES


def test_every_button_asks_for_an_action_that_has_a_least_role() -> None:
    offered = {action for one in MODELS.values() if isinstance(one, Window) for action in one.verbs.values()}
    assert offered == set(LEAST) - PAGES - {"note_reading"}
    assert {one.action for one in MODELS.values() if isinstance(one, Window)} == PAGES


def test_no_page_decides_by_djangos_permissions() -> None:
    for module in (access, *(__import__(f"conversations.desk.admin.{name}", fromlist=["x"]) for name in (
        "channels", "conversations", "messages", "operations", "people", "quarantine", "replies", "windows"
    ))):  # fmt: skip
        names = {
            node.attr for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Attribute)
        }
        assert not names & {"has_perm", "has_perms", "has_module_perms"}, module.__name__


def test_every_address_has_a_rule() -> None:
    assert len(ADMIN) > 100
    for name in ADMIN:
        rule(name)
    for path, pattern in routes():
        known = path.startswith((settings.ADMIN_PATH, "api/", *PUBLIC)) or path in ("", settings.ADMIN_PATH.rstrip("/"))
        assert known, f"{path} ({pattern.name}) is neither of the admin, of the API nor public"


# ---------------------------------------------------------------- every address, as each role


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_a_role_opens_its_pages_and_no_other(shop: Scene, role: Role) -> None:
    client = entered(person_with(role, shop))
    wrong = []
    for name in ADMIN:
        if not is_verb(name) and name != "logout":
            status = call(client, name, shop)
            opened = status in (200, 302) or (role is Role.SUPERUSER and status in (403, 404))
            if opened != (role >= rule(name)) and not (name.endswith("_history") and status == 302):
                wrong.append((name, status))
    assert [one for one in wrong if one[0] not in ("catch_all", "view_on_site", "autocomplete")] == []


@pytest.mark.parametrize("name", [name for name in ADMIN if is_verb(name)])
def test_a_verb_asks_for_its_role(shop: Scene, name: str) -> None:
    before = state_of_everything()
    for role in ROLES[:-1]:
        if role < rule(name):
            status = call(entered(person_with(role, shop)), name, shop)
            assert status == (404 if role is Role.NOBODY else 403), role
            TenantStaff.objects.all().delete()
            assert state_of_everything() == before, role
    assert call(entered(person_with(max(rule(name), Role.READ_ONLY), shop)), name, shop) == 302


@pytest.mark.parametrize("role", ROLES[1:-1], ids=str)
def test_a_role_in_one_tenant_is_none_in_another(shop: Scene, role: Role) -> None:
    client = entered(person_with(role, make_scene("Bank")))
    before = state_of_everything()
    for name in ADMIN:
        model = next((model for model in MODELS if name.startswith(model + "_")), "")
        if (
            model
            and not name.endswith("_changelist")
            and not (name.endswith("_history") and "conversations" not in name)
        ):
            assert call(client, name, shop) in (403, 404), name
    assert state_of_everything() == before


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_the_api_answers_whoever_may_see(shop: Scene, role: Role) -> None:
    client = entered(person_with(role, shop))
    stranger = entered(person_with(Role.TENANT_ADMIN, make_scene("Bank"), "stranger"))
    paths = [
        path.replace("<int:conversation_id>", str(shop.lane.pk)) for path, _ in routes() if path.startswith("api/")
    ]
    assert len(paths) == 2
    for path in paths:
        assert client.get(f"/{path}").status_code == (403 if role is Role.NOBODY else 200)
        assert client.post(f"/{path}").status_code in (403, 405)
        answer = stranger.get(f"/{path}")
        assert answer.status_code == 404 or shop.lane.pk not in [row["id"] for row in answer.json()]


# ---------------------------------------------------------------- what gives no role


def test_djangos_permissions_alone_allow_nothing(shop: Scene) -> None:
    """The finding: a person with ``view_*`` took over and wrote to a customer."""
    person = person_with(Role.READ_ONLY, shop)
    person.user_permissions.set(Permission.objects.all())
    client = entered(person)
    for name in ADMIN:
        if rule(name) > Role.READ_ONLY and not name.endswith("_history"):
            assert call(client, name, shop) in (403, 404), name
    assert Conversation.objects.get(pk=shop.lane.pk).mode == "bot"


def test_a_word_that_is_no_role_allows_nothing(shop: Scene, anna: User) -> None:
    for word in ("superuser", "nobody", "AGENT", ""):
        TenantStaff.objects.update_or_create(tenant=shop.channel.tenant, staff=anna, defaults={"role": word})
        assert call(entered(anna), "conversations_conversation_change", shop) == 404
        assert entered(anna).get("/api/stuck/").status_code == 403


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
    assert ('class="button' in page or "<button" in page.partition("<article")[2]) == (
        role >= (Role.TENANT_ADMIN if model in ("channel", "pause") else Role.AGENT)
    )
