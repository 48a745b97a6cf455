"""What the pages show: reasons in words, words of people as words, credentials never."""

from __future__ import annotations

import datetime as dt
import io
import re
import runpy
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse
from django.utils import timezone
from django.utils.html import escape

from conversations import runtime
from conversations.desk import actions
from conversations.desk.admin import filters
from conversations.desk.templatetags.desk import as_on_phone, visible
from conversations.models import (
    Audit,
    Channel,
    Contact,
    Conversation,
    ConversationState,
    Message,
    Pause,
    Reply,
    Template,
    Turn,
)
from tests.desk.admin.conftest import Scene, make_scene
from tests.desk.admin.test_access import WINDOWS, address_of
from tests.kit.desk_scenes import make_lane, make_message, make_reply, seen

ROOT = Path(__file__).parents[3]
PAYLOADS = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'-alert(1)-'",
    "{{ 7|add:7 }}{% debug %}",
    "javascript:alert(1)",
    "</textarea></title><svg/onload=alert(1)>",
    "\u202egnp.exe\u2066\u200b\x1b[31m",
]  # fmt: skip


def lane_page(client: Client, lane: Conversation, **query: Any) -> Any:
    return client.get(reverse("admin:conversations_conversation_change", args=[lane.pk]), query)


def lane_list(client: Client, **query: Any) -> Any:
    return client.get(reverse("admin:conversations_conversation_changelist"), query)


def pages(client: Client, scene: Scene) -> list[Any]:
    """Every list and every page of the admin."""
    names = [f"admin:conversations_{window.opts.model_name}_changelist" for window in WINDOWS]
    found = scene.rows()
    rows = [(window, found[window.opts.model_name]) for window in WINDOWS if window.opts.model_name in found]
    addresses = [reverse("admin:index"), *map(reverse, names),
                 *(address_of(window, "change", row) for window, row in rows)]  # fmt: skip
    return [client.get(address, follow=True) for address in addresses]


# ---------------------------------------------------------------- safe


@pytest.mark.parametrize("payload", PAYLOADS)
def test_words_of_people_are_shown_as_words(chief: Client, payload: str) -> None:
    scene = make_scene("Shop", payload)
    live = chief.get(reverse("admin:conversations_conversation_live", args=[scene.lane.pk])).json()
    for answer in pages(chief, scene):
        assert answer.status_code == 200
        assert_harmless(answer.content.decode(), payload)
    assert_harmless("".join(live["parts"].values()), payload)


def assert_harmless(html: str, payload: str) -> None:
    if "<" in payload or "'" in payload:
        assert payload not in html
    for hidden in "\u202e\u2066\u200b\x1b":
        assert hidden not in html
    assert "<script>" not in html
    assert "onerror=alert(1)>" not in html
    assert 'href="javascript:' not in html


def test_hidden_characters_are_shown() -> None:
    assert visible("a\u202eb\x00c\n\td") == "a⟦U+202E⟧b\u2400c\n\td"


def test_pages_need_no_inline_scripts_or_styles(chief: Client, shop: Scene) -> None:
    for answer in pages(chief, shop):
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-inline" not in policy
        html = answer.content.decode()
        assert " style=" not in html
        assert "<style" not in html
        assert " onclick=" not in html


ON_PHONE = {
    "*Hi* _you_ ~all~": "<b>Hi</b> <i>you</i> <s>all</s>",
    "_*both*_": "<i><b>both</b></i>",
    "2 * 3 * 4, order_id_7, ~ x": "2 * 3 * 4, order_id_7, ~ x",
    "*<b>*": "<b>&lt;b&gt;</b>",
    "{{order_id}} and {{user_id}}": '<span class="variable">order_id</span> and <span class="variable">user_id</span>',
}


@pytest.mark.parametrize(("text", "html"), ON_PHONE.items())
def test_marks_and_variables_of_a_template_are_shown_as_on_a_phone(text: str, html: str) -> None:
    assert as_on_phone(text) == html


def test_no_tick_marks_an_open_item_of_the_quarantine(chief: Client, shop: Scene) -> None:
    content = chief.get(reverse("admin:conversations_quarantine_changelist")).content.decode()
    assert ("icon-no" in content, "icon-yes" in content) == (True, False)


def test_a_template_is_shown_with_the_line_of_a_bot_that_sends_it(chief: Client, shop: Scene) -> None:
    Template.objects.update(name="order", language="de", status="flagged", changed_at=timezone.now())
    page = chief.get(reverse("admin:conversations_template_change", args=[shop.template.pk])).content.decode()
    assert '<b>words</b> <span class="variable">1</span>' in page
    values = '{"header": Attachment(kind="words", ...), "1": "...", "button 1": "..."}'
    assert escape(f'turn.reply(template=Template("order", language="de", values={values}))') in page
    assert "flagged; changed since it was fetched: fetch it again" in page
    for fields, why in (({"status": "paused"}, "is paused"), ({"shape": {"odd": "a carousel"}}, "has a carousel")):
        Template.objects.update(**fields)
        page = chief.get(reverse("admin:conversations_template_change", args=[shop.template.pk])).content.decode()
        assert f"It cannot be sent: it {why}" in page


def test_credentials_are_never_shown(chief: Client, shop: Scene) -> None:
    sealed = Channel.objects.get(pk=shop.channel.pk).sealed["secret"]
    for answer in pages(chief, shop):
        assert b"clear-Shop" not in answer.content
        assert sealed.encode() not in answer.content
    page = chief.get(reverse("admin:conversations_channel_change", args=[shop.channel.pk])).content.decode()
    assert ">set<" in page
    assert "not set" in page


def test_reading_a_conversation_is_audited_once(anna_of_shop: Client, anna: User, shop: Scene) -> None:
    for _ in range(2):
        lane_page(anna_of_shop, shop.lane)
    assert Audit.objects.filter(verb="read", staff=anna, conversation_id=shop.lane.pk).count() == 1


def test_a_held_installation_says_so_on_every_page(chief: Client, shop: Scene, settings: Any) -> None:
    settings.PUBLIC_URL = "https://staging.example"
    runtime.begin()
    assert all(b"Nothing is sent to people from here" in answer.content for answer in pages(chief, shop))


# ---------------------------------------------------------------- fast


def queries(client: Client, address: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return [query["sql"] for query in captured]


LISTS = [window for window in WINDOWS if window.opts.model_name not in ("message", "reply")]


@pytest.mark.parametrize("window", LISTS, ids=lambda window: window.opts.model_name)
def test_lists_ask_as_much_for_fifty_rows_as_for_one(chief: Client, shop: Scene, window: Any) -> None:
    address = reverse(f"admin:conversations_{window.opts.model_name}_changelist")
    few = queries(chief, address)
    for number in range(12):
        make_scene(f"Shop {number}")
    many = queries(chief, address)
    assert len(many) == len(few)
    assert len(many) <= 12
    assert not [query for query in many if "count(*)" in query.lower() and "LIMIT" not in query]


def test_a_page_asks_as_much_for_a_long_conversation_as_for_a_short_one(chief: Client, shop: Scene) -> None:
    address = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    chief.get(address)  # writes down that it was read
    few = queries(chief, address)
    for number in range(3, 33):
        message = make_message(shop.lane, number, "handled")
        make_reply(shop.lane, number, "person:sent", message_id=message.pk)
        Audit.objects.create(verb="wake", conversation_id=shop.lane.pk)
    assert len(queries(chief, address)) == len(few) <= 20


def test_lists_are_walked_by_id(chief: Client) -> None:
    lanes = [make_lane() for _ in range(53)]
    first = lane_list(chief)
    columns = re.findall(r"<th[^>]*column-(\w+)", first.content.decode())
    assert columns[:2] == ["person", "reason"], "these two fit on a phone"
    assert [lane.pk for lane in first.context["cl"].result_list] == [lane.pk for lane in reversed(lanes[3:])]
    second = chief.get(reverse("admin:conversations_conversation_changelist") + first.context["cl"].older_address)
    assert [lane.pk for lane in second.context["cl"].result_list] == [lane.pk for lane in reversed(lanes[:3])]
    assert second.context["cl"].older is None


def test_a_long_conversation_is_read_in_windows(chief: Client) -> None:
    lane = make_lane(" ".join(["handled"] * 60), " ".join(["person:sent"] * 2))
    newest = lane_page(chief, lane).context["window"]
    assert [block.message.sequence for block in newest.blocks if block.message] == list(range(21, 61))
    older = lane_page(chief, lane, before=newest.older).context["window"]
    assert [block.message.sequence for block in older.blocks if block.message] == list(range(1, 21))
    assert older.older is None


# ---------------------------------------------------------------- the audit


def audit_list(client: Client, **query: Any) -> str:
    return client.get(reverse("admin:conversations_audit_changelist"), query).content.decode()


def test_the_audit_names_conversations_channels_and_days(chief: Client, anna: User, shop: Scene) -> None:
    actions.skip(seen(shop.lane), anna, "spam")
    actions.start_pause("channel", str(shop.channel.pk), "handling", anna, "wrong prices")
    entry = Audit.objects.get(verb="skip", staff=anna)
    page = chief.get(reverse("admin:conversations_audit_change", args=[entry.pk])).content.decode()
    lane = reverse("admin:conversations_conversation_change", args=[shop.lane.pk])
    assert f'<a href="{lane}">' in page
    assert "&lt;a href" not in page
    found = audit_list(chief)
    assert f'<a href="{lane}">words</a>' in found
    assert "channel words channel (generic): handling" in found
    assert timezone.localtime().strftime("%Y-%m-%d ") in found


def test_the_audit_says_what_changed_and_of_credentials_only_that(chief: Client, anna: User, shop: Scene) -> None:
    actions.set_credentials(shop.channel, {"secret": "whsec_" + "c" * 24}, anna)
    actions.set_active(shop.channel, False, anna, "holidays")
    call_command("set_channel", shop.channel.public_id, "--api-base", "http://127.0.0.1:9/", stdout=io.StringIO())
    found = audit_list(chief)
    assert "secret changed" in found
    assert "whsec_" not in found
    assert "active: true → false" in found
    assert "api_base: nothing → &quot;http://127.0.0.1:9/&quot;" in found
    assert "channel words channel (generic)" in found


def test_the_audit_is_narrowed_by_who_what_when_and_tenant(chief: Client, anna: User, shop: Scene) -> None:
    bank = make_scene("Bank")
    actions.skip(seen(shop.lane), anna, "by anna")
    Audit.objects.create(verb="wake", conversation_id=bank.lane.pk, subject="of an old version")
    old = timezone.now() - dt.timedelta(days=2)
    Audit.objects.create(verb="wake", tenant_id=bank.channel.tenant_id, subject="two days ago", at=old)

    def subjects(**query: Any) -> set[str]:
        shown = chief.get(reverse("admin:conversations_audit_changelist"), query).context["cl"].result_list
        return {row.subject for row in shown}

    assert subjects(who=anna.pk) == {"message 1"}
    assert subjects(who="command") == {"words", "of an old version", "two days ago"}
    assert subjects(what="wake") == {"of an old version", "two days ago"}
    assert subjects(what="wake", when="24") == {"of an old version"}
    assert subjects(tenant=bank.channel.tenant_id) == {"words", "of an old version", "two days ago"}
    assert subjects(tenant=shop.channel.tenant_id) == {"words", "message 1"}


def test_staff_read_the_audit_of_their_tenants_only(anna_of_shop: Client, shop: Scene) -> None:
    bank = make_scene("Bank", "theirs")
    Audit.objects.create(verb="change channel", tenant_id=shop.channel.tenant_id, subject="ours")
    Audit.objects.create(verb="change channel", tenant_id=bank.channel.tenant_id, subject="theirs")
    found = audit_list(anna_of_shop)
    assert "ours" in found
    assert "theirs" not in found


def test_staff_see_no_entries_of_a_tenant_they_left_nor_own(anna_of_shop: Client, anna: User, shop: Scene) -> None:
    bank = make_scene("Bank")
    lane, tenant = bank.lane.pk, bank.channel.tenant_id
    Audit.objects.create(verb="take_over", staff=anna, tenant_id=tenant, conversation_id=lane, subject="theirs")
    Audit.objects.create(verb="take_over", staff=anna, conversation_id=lane, subject="theirs, of version 0.1")
    Audit.objects.create(verb="switch_off", staff=anna, tenant_id=tenant, subject="their channel")
    Audit.objects.create(verb="start_pause", staff=anna, subject="bot echo")
    found = audit_list(anna_of_shop)
    assert "bot echo" in found
    assert "their" not in found


def test_every_verb_of_the_audit_is_in_its_filter() -> None:
    written = set()
    for name in ("conversations/desk", "channels_ingest", "conversations/management"):
        text = "".join(path.read_text() for path in (ROOT / name).rglob("*.py"))
        written |= set(re.findall(r'(?:verb=|staff, )"([a-z_ ]+)"', text))
    written |= {
        verb
        for path in (ROOT / "conversations/desk/sql").glob("*.sql")
        for verb in re.findall(r"SELECT %\(staff\)s, '(\w+)'", path.read_text())
    }
    assert len(written) > 10
    assert written <= set(filters.VERBS)


def test_the_page_of_a_worker_names_each_fact_once(chief: Client, shop: Scene) -> None:
    page = chief.get(reverse("admin:conversations_worker_change", args=[shop.worker.pk])).content.decode()
    labels = re.findall(r'<th scope="row">(.*?)</th>', page)
    assert len(labels) == len(set(labels)) > 8
    assert {"Heartbeats", "Last heartbeat"} <= set(labels)


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_admin_without_its_slash_leads_to_the_admin(client: Client, method: str) -> None:
    answer = getattr(client, method)("/admin?next=1")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/?next=1")


@pytest.mark.parametrize("where", ["", "admin"])
def test_the_admin_without_a_slash_takes_no_other_address(settings: Any, where: str) -> None:
    settings.ADMIN_PATH = where
    project = ModuleType("project")
    vars(project).update(runpy.run_path(str(ROOT / "botproject/urls.py")))
    assert resolve("/webhooks/telegram/shop", project).view_name == "webhook"
    assert resolve(f"/{where}", project).view_name == ("admin:index" if where else "webchat:home")


# ---------------------------------------------------------------- finding


@pytest.fixture
def ada(shop: Scene) -> Conversation:
    lane = make_lane("handled", "sent", channel=shop.channel, name="Ada Byron Lovelace")
    values = {"username": "countess", "phone": "+49 170 1234567", "email": "ada@analytical.example"}
    Contact.objects.filter(pk=lane.contact_id).update(**values)
    Reply.objects.filter(conversation=lane).update(platform_id="wamid.OUT=")
    Message.objects.filter(conversation=lane).update(platform_id="wamid.IN=")
    return lane


@pytest.mark.parametrize(
    "text",
    ["ada", "lovelace ada", "LOVE", "countess", "+491701234567", "0170 1234567", "1234567", "ada@analytical.example",
     "wamid.OUT=", "wamid.IN="],
)  # fmt: skip
def test_a_conversation_is_found_by_what_staff_have_at_hand(chief: Client, ada: Conversation, text: str) -> None:
    make_lane(name="Charles Babbage")
    assert [lane.pk for lane in lane_list(chief, q=text).context["cl"].result_list] == [ada.pk]


def test_a_conversation_is_found_by_its_chat_number_and_trace(chief: Client, ada: Conversation) -> None:
    trace = Message.objects.get(conversation=ada).trace
    for text in (ada.chat, str(ada.pk), trace):
        assert ada.pk in [lane.pk for lane in lane_list(chief, q=text).context["cl"].result_list]


@pytest.mark.parametrize("text", ["'", "\\", "a:* | b", "& !", "%", "\0", "x" * 5000, "()", "'':*"])
def test_whatever_is_searched_for_is_answered(chief: Client, ada: Conversation, text: str) -> None:
    assert lane_list(chief, q=text).status_code == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [({"mode": "human"}, ["human"]), ({"mode": "paused"}, ["paused"]), ({"mode": "blocked"}, ["blocked"]),
     ({"pending": "600"}, ["old"]), ({"stuck": "yes"}, ["blocked", "human", "paused"])],
)  # fmt: skip
def test_lists_are_narrowed(chief: Client, query: dict[str, str], expected: list[str]) -> None:
    make_lane("handled", name="idle")
    make_lane("parked", name="blocked", blocked=True, next_sequence=1)
    make_lane("handled", name="human", mode="human")
    make_lane("handled", name="paused", paused_at=timezone.now())
    old = make_lane("pending", name="old", due_at=timezone.now())
    Message.objects.filter(conversation=old).update(received_at=timezone.now() - dt.timedelta(minutes=11))
    found = [lane.contact.name for lane in lane_list(chief, **query).context["cl"].result_list]
    assert sorted(found) == expected


def test_a_list_is_narrowed_to_a_channel(chief: Client, shop: Scene) -> None:
    make_lane(name="elsewhere")
    found = lane_list(chief, channel=shop.channel.pk).context["cl"].result_list
    assert [lane.pk for lane in found] == [shop.lane.pk]


@pytest.mark.parametrize("value", ["²", "x", "", "-1", "9" * 30])
def test_a_channel_that_is_no_id_is_no_error(chief: Client, shop: Scene, value: str) -> None:
    assert lane_list(chief, channel=value).status_code == 200


# ---------------------------------------------------------------- what the bot noted


def test_the_timeline_shows_the_log_and_the_state_of_the_bot_folded(chief: Client) -> None:
    lane = make_lane("handled")
    head = Message.objects.get(conversation=lane)
    Turn.objects.create(
        conversation=lane, message_id=head.pk, worker=uuid.uuid4(), outcome="committed", started_at=timezone.now(),
        bot="orders", log=["price is 12 <b>EUR</b>", "second line"],
    )  # fmt: skip
    ConversationState.objects.create(conversation=lane, bot="orders", state={"cart": ["tea </pre>"], "step": 3})
    page = lane_page(chief, lane).content.decode()
    folds = re.findall(r"<details[^>]*>.*?</details>", page, re.S)
    assert not any("<details open" in fold for fold in folds)
    assert any("log: 2 lines" in fold and "price is 12 &lt;b&gt;EUR&lt;/b&gt;\nsecond line" in fold for fold in folds)
    assert any("&quot;step&quot;: 3" in fold and "tea &lt;/pre&gt;" in fold for fold in folds)
    live = chief.get(reverse("admin:conversations_conversation_live", args=[lane.pk])).json()["parts"]["timeline"]
    assert "second line" in live
    assert "&quot;step&quot;: 3" in live


def test_the_page_and_the_list_show_what_stops_replies_and_who_caused_it(chief: Client, anna: User) -> None:
    lane = make_lane("handled", window_until=timezone.now() - dt.timedelta(days=1), no_marketing_since=timezone.now())
    Conversation.objects.filter(pk=lane.pk).update(last_sequence=2, next_sequence=3, opted_out_at=timezone.now())
    make_message(lane, 2, "handled", text="Stop", payload={"wish": "nothing"})
    page = lane_page(chief, lane).content.decode()
    for shown in ("the person: opted out message 2", "wants nothing", "only a template can be sent", "not wanted"):
        assert shown in page
    assert "The person wants no more messages (message 2)" in page
    assert "The person wants no more messages (message 2)" in lane_list(chief).content.decode()
    assert [verb.name for verb in lane_page(chief, lane).context["verbs"]][-2:] == ["opt_in", "wake"]
    actions.set_opt_out(lane.pk, anna, "asked by mail", out=False)
    page = lane_page(chief, lane).content.decode()
    assert "anna: opt in — <bdi>asked by mail</bdi>" in page
    assert "wants no more messages" not in page


# ---------------------------------------------------------------- live


def test_the_live_page_answers_304_until_something_changes(chief: Client, anna: User) -> None:
    lane = make_lane("pending", "sent")
    address = reverse("admin:conversations_conversation_live", args=[lane.pk])
    cursor = lane_page(chief, lane).context["cursor"]
    assert chief.get(address, {"cursor": cursor}).status_code == 304
    changes = [lambda: actions.take_over(seen(lane), anna), lambda: actions.answer(seen(lane), anna, "hello there"),
               lambda: Reply.objects.filter(conversation=lane, sequence=1).update(delivered="read"),
               lambda: actions.hand_back(seen(lane), anna, skip_answered=True),
               lambda: Pause.objects.create(scope="bot", target="x", stops="handling")]  # fmt: skip
    for change in changes:
        change()
        answer = chief.get(address, {"cursor": cursor})
        assert answer.status_code == 200
        cursor = answer.json()["cursor"]
        assert chief.get(address, {"cursor": cursor}).status_code == 304


def test_an_unchanged_live_page_costs_one_query(chief: Client) -> None:
    """Besides who asks and whether they may: session, person, lane."""
    lane = make_lane("pending", "sent")
    address = reverse("admin:conversations_conversation_live", args=[lane.pk])
    cursor = lane_page(chief, lane).context["cursor"]
    with CaptureQueriesContext(connection) as captured:
        chief.get(address, {"cursor": cursor})
    assert len(captured) <= 4


def test_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", "--check", "--dry-run", "conversations", verbosity=0)
