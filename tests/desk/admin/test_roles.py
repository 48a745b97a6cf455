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
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from conversations.desk import access, actions
from conversations.desk.access import LEAST, Role
from conversations.desk.admin.windows import Window
from conversations.models import Audit, Conversation, TenantStaff
from tests.desk.admin.conftest import Scene, entered, make_scene
from tests.kit.desk_scenes import make_staff

PAGES = {"see", "see_workers", "give_roles"}
ROLES = (Role.NOBODY, Role.READ_ONLY, Role.AGENT, Role.TENANT_ADMIN, Role.SUPERUSER)

# Addresses outside the admin and the API: for platforms, visitors and monitors. They have their own tests.
PUBLIC = ("webhooks/", "bots/", "chat/", "web/", "files/", "widget.js", "healthz", "metrics")
# Addresses of Django's own admin site -> least role; those of people who may log in are for NOBODY.
SITE = {
    **dict.fromkeys(("index", "login", "logout", "password_change", "password_change_done", "jsi18n"), Role.NOBODY),
    "app_list": Role.READ_ONLY,
    **dict.fromkeys(("autocomplete", "view_on_site", "catch_all"), Role.SUPERUSER),
}
# Addresses that nobody opens, not even a superuser -> why.
CLOSED = {
    "catch_all": "it answers for every address that is not there",
    "view_on_site": "no row has a page outside the admin",
}
# The same for pages of every ``Window``.
CLOSED_PAGES = {
    "add": "rows come from platforms, bots and verbs",
    "delete": "rows stay until their time is over",
    "history": "the audit has the history",
}
EDITED = {"conversations_tenantstaff_add", "conversations_tenantstaff_delete"}  # the one table that has a form
WINDOW_PAGES = {"changelist", "change", "live", "file"}  # open with the window's action; all other pages change rows


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
    if page in ("upload", "template"):
        return LEAST["answer"]
    if page in WINDOW_PAGES:
        return LEAST[window.action]
    return {"add": Role.SUPERUSER, "delete": Role.SUPERUSER, "history": Role.SUPERUSER}[page]


def is_closed(name: str) -> bool:
    """Whether nobody opens this address, whatever the role."""
    model = next((model for model in MODELS if name.startswith(model + "_")), "")
    page = isinstance(MODELS.get(model), Window) and name[len(model) + 1 :] in CLOSED_PAGES
    return name in CLOSED or (page and name not in EDITED)


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


@pytest.fixture(autouse=True)
def rows_of_django(own_database: str) -> None:
    """A row for each page of Django's own models: without one, its history leads away before it asks for a role."""
    for name, model_admin in MODELS.items():
        if not isinstance(model_admin, Window) and name != "auth_user":
            counted = {"failures_since_start": 1} if name == "axes_accessattempt" else {}
            model_admin.model._base_manager.create(**counted)


def address_of(name: str, scene: Scene) -> str:
    """The address of a name, for the scene's row where it names one."""
    if name == "catch_all":
        return reverse("admin:index") + "nowhere"
    if name == "view_on_site":
        return reverse("admin:view_on_site", args=[ContentType.objects.get_for_model(scene.lane).pk, scene.lane.pk])
    if name == "autocomplete":
        return reverse("admin:autocomplete") + "?app_label=conversations&model_name=tenantstaff&field_name=staff"
    if name == "app_list":
        return reverse("admin:app_list", args=["conversations"])
    model = next((model for model in MODELS if name.startswith(model + "_")), "")
    row = rows_of(scene).get(model) or (MODELS[model].model._base_manager.order_by("pk").first() if model else None)
    if name == "conversations_conversation_upload":
        return reverse(f"admin:{name}", args=[scene.lane.pk])
    if name == "conversations_conversation_file":
        return reverse(f"admin:{name}", args=[scene.lane.pk, scene.file.pk])
    argued = model and not name.endswith(("_changelist", "_add"))
    return reverse(f"admin:{name}", args=[getattr(row, "pk", 1)] if argued else [])


def is_verb(name: str) -> bool:
    windows = [(model, one) for model, one in MODELS.items() if isinstance(one, Window)]
    return any(name == f"{model}_{verb}" for model, one in windows for verb in one.verbs)


FORM = {"epoch": 0, "next_sequence": 1, "last_sequence": 2, "note": "x", "text": "x", "rest": "bot", "number": 1}


def call(client: Client, name: str, scene: Scene) -> int:
    form = {**FORM, "since": scene.pause.since.isoformat(), "new_secret": "whsec_" + "a" * 24}
    address = address_of(name, scene)
    if name.endswith("_upload"):  # it takes the bytes of a file
        return client.post(address, b"words", content_type="application/octet-stream").status_code
    return client.post(address, form).status_code if is_verb(name) else client.get(address).status_code


def post(client: Client, name: str, scene: Scene) -> int:
    """Send a form that would give its sender power, if the page let it in, or delete the row."""
    me, row = client.session["_auth_user_id"], rows_of(scene)["conversations_tenantstaff"]
    password = {f"password{part}": "correct horse battery" for part in ("", "1", "2")} | {"usable_password": "true"}
    power = {"role": "tenant_admin", "staff": me, "tenant": scene.channel.tenant_id, "is_staff": "on"}
    user = {"username": "mallory", "is_active": "on", "is_superuser": "on", "name": "x", **password}
    listed = {"action": "delete_selected", "_selected_action": getattr(row, "pk", me)}
    form = {**power, **user, **listed, "post": "yes", "_save": 1}
    return client.post(address_of(name, scene), form).status_code


def is_refused(name: str, status: int) -> bool:
    """Whether ``post`` was refused. Autocomplete takes GET only, and says so before it asks for a role."""
    return status in (403, 404) or (name == "autocomplete" and status == 405)


TABLES = (
    "conversation", "message", "reply", "channel", "app", "pause", "quarantine", "desk", "tenant", "contact",
    "tenant_staff", "auth_user", "auth_user_groups", "auth_user_user_permissions", "auth_group",
    "auth_group_permissions",
)  # fmt: skip


def state_of_everything() -> list[Any]:
    """All rows that a verb or a form could change; reading is written down, and allowed to all who see."""
    with connection.cursor() as cursor:
        found: list[Any] = []
        for table in TABLES:
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
    assert offered == set(LEAST) - PAGES - {"note_reading", "note_page"}
    assert {one.action for one in MODELS.values() if isinstance(one, Window)} == PAGES


def test_no_page_decides_by_djangos_permissions() -> None:
    for module in (access, *(__import__(f"conversations.desk.admin.{name}", fromlist=["x"]) for name in (
        "channels", "conversations", "credentials", "messages", "operations", "people", "quarantine", "replies",
        "template_form", "templates", "windows",
    ))):  # fmt: skip
        tree = ast.parse(inspect.getsource(module))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
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
            expected = (200, 302) if role >= rule(name) and not is_closed(name) else (403, 404)
            if status not in expected:
                wrong.append((name, status))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES[:-1], ids=str)
def test_a_form_sent_to_a_page_changes_nothing(shop: Scene, role: Role) -> None:
    """Not even to a page that the sender may see: forms are for verbs, and for superusers."""
    client = entered(person_with(role, shop))
    before = state_of_everything()
    for name in ADMIN:
        if not is_verb(name) and name != "logout":
            status = post(client, name, shop)
            assert role >= rule(name) or is_refused(name, status), (name, status)
            assert state_of_everything() == before, name


@pytest.mark.parametrize("name", [name for name in ADMIN if is_verb(name)])
def test_a_verb_asks_for_its_role(shop: Scene, name: str) -> None:
    for role in ROLES[:-1]:
        if role < rule(name):
            client = entered(person_with(role, shop))
            before = state_of_everything()
            status = call(client, name, shop)
            assert state_of_everything() == before, role
            assert status == (404 if role is Role.NOBODY else 403), role
            TenantStaff.objects.all().delete()
    assert call(entered(person_with(max(rule(name), Role.READ_ONLY), shop)), name, shop) == 302


@pytest.mark.parametrize("role", ROLES[:-1], ids=str)
def test_a_role_in_one_tenant_is_none_in_another(role: Role) -> None:
    theirs = make_scene("Shop", "their words")
    client = entered(person_with(role, make_scene("Bank")))
    before = state_of_everything()
    for name in ADMIN:
        if any(name.startswith(model + "_") for model in MODELS):
            if name.endswith("_changelist"):
                answer = client.get(address_of(name, theirs), follow=True)
                assert answer.status_code == (200 if role >= rule(name) else 403), name
                assert b"their words" not in answer.content, name
            else:
                assert call(client, name, theirs) in (403, 404), name
            if not is_verb(name):
                status = post(client, name, theirs)
                assert is_refused(name, status) or (name.endswith("_changelist") and role >= rule(name)), (name, status)
            assert state_of_everything() == before, name


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_the_api_answers_whoever_may_see(shop: Scene, role: Role) -> None:
    client = entered(person_with(role, shop))
    stranger = entered(person_with(Role.TENANT_ADMIN, make_scene("Bank"), "stranger"))
    lane = str(shop.lane.pk)
    paths = [path.replace("<int:conversation_id>", lane) for path, _ in routes() if path.startswith("api/")]
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
        if rule(name) > Role.READ_ONLY:
            assert call(client, name, shop) in (403, 404), name
            assert is_verb(name) or is_refused(name, post(client, name, shop)), name
    assert Conversation.objects.get(pk=shop.lane.pk).mode == "bot"
