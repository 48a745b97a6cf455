"""Templates of a channel: fetched, kept up to date by webhooks in any order, and checked before a turn commits."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest
from django.core.management import CommandError, call_command

from channels_ingest.formats.strict_json import Unreadable
from channels_ingest.http_bots.protocol import read_late
from conversations import registry, runtime, templates, turns
from conversations.contracts import ChannelConfig, Note, TemplateUpdate, WebhookRequest
from conversations.models import Channel
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import as_json
from conversations.reports.templates import CLOCK_SECONDS, keep
from conversations.storing import intake, spool_format
from conversations.storing.rows import ParsedRequest
from conversations.template_shapes import ListedTemplate, Template, TemplateShape
from tests.kit.stack import wait_until

NOW = 1_700_000_000.0
SECRET = "0123456789abcdef0123456789abcdef"
SHAPE = TemplateShape(body="Order {{1}} left.")


def run(*arguments: str) -> tuple[Any, str]:
    """Run a command; return its line of JSON, and what it said meanwhile."""
    out, said = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=said)
    registry.forget_channels()
    return json.loads(out.getvalue()), said.getvalue()


def add(name: str, *more: str) -> ChannelConfig:
    pairs = ("phone_number_id=" + "".join(str(ord(letter)) for letter in name[:3].ljust(3)), "waba_id=777000")
    line, _ = run("add_channel", "whatsapp", "--name", name, *(f"--set={pair}" for pair in pairs), *more)
    found = registry.channel(line["id"])
    assert found is not None
    return found


OWN = (f"--set=app_secret={SECRET}", "--set=verify_token=our words", "--set=access_token=EAA")


@pytest.fixture
def shop(own_database: str) -> ChannelConfig:
    return add("shop", *OWN)


def listed(name: str = "order", language: str = "de", status: str = "approved", **more: Any) -> ListedTemplate:
    return ListedTemplate(name=name, language=language, status=status,
                          **{"shape": SHAPE, "quality": "green", "category": "utility", **more})  # fmt: skip


def report(channel: ChannelConfig, at: float, account: str = "777000", name: str = "order", **news: str) -> None:
    update = TemplateUpdate(account=account, name=name, language="de", at=at, **news)
    request = WebhookRequest(method="POST", url="", headers={}, query={}, body=b"{}")
    intake.accept(channel, [Note(reason="news", template=update)], request)


def state(channel: ChannelConfig, column: str = "status || ' ' || quality") -> list[Any]:
    query = f"SELECT {column} FROM template WHERE channel_id = %s ORDER BY name, language"
    return [value for (value,) in runtime.read(query, (channel.id,))]


# ---------------------------------------------------------------- keeping


def test_a_list_replaces_the_one_before(shop: ChannelConfig) -> None:
    assert keep(shop.id, "777000", [listed(), listed(language="en_US"), listed("old")], NOW) == (3, 0)
    changed = TemplateShape(body="changed")
    again = [listed(status="paused", quality="red", shape=changed), listed(language="en_US"), listed("new")]
    assert keep(shop.id, "777000", again, NOW + 1) == (3, 1)
    assert state(shop, "name || ' ' || language") == ["new de", "order de", "order en_US"]
    assert state(shop) == ["approved green", "paused red", "approved green"]
    assert [msgspec.convert(each, TemplateShape).body for each in state(shop, "shape")][1] == "changed"
    assert keep(shop.id, "777000", [], NOW + 2) == (0, 3)


def test_reports_come_in_any_order_and_the_newest_of_each_kind_counts(shop: ChannelConfig) -> None:
    keep(shop.id, "777000", [listed()], NOW)
    report(shop, NOW + 10, status="paused")
    report(shop, NOW + 5, status="rejected")
    assert state(shop) == ["paused green"]
    report(shop, NOW + 7, quality="red")
    report(shop, NOW + 6, quality="yellow")
    report(shop, NOW - CLOCK_SECONDS - 1, status="pending")
    assert state(shop) == ["paused red"]
    keep(shop.id, "777000", [listed(category="marketing")], NOW + 8 + CLOCK_SECONDS)
    assert state(shop) == ["paused green"], "a report that is newer than the list stays"
    keep(shop.id, "777000", [listed()], NOW + 11 + CLOCK_SECONDS)
    assert state(shop) == ["approved green"]
    assert state(shop, "changed_at") == [None]
    report(shop, NOW + 20 + CLOCK_SECONDS)
    assert state(shop, "changed_at > fetched_at") == [True]
    report(shop, 0, status="disabled")
    assert state(shop) == ["disabled green"], "without a time it is of now"


def test_two_processes_that_keep_one_list_lock_its_rows_in_one_order(shop: ChannelConfig, own_database: str) -> None:
    names = ["a", "b"]
    keep(shop.id, "777000", [listed(name) for name in names], NOW)

    def keep_beside(order: list[str]) -> Any:
        values = {"channel": shop.id, "account": "777000", "began": NOW,
                  "items": as_json([listed(name) for name in order])}  # fmt: skip
        with contextlib.closing(psycopg.connect(own_database, autocommit=True)) as own:
            return own.execute(sql("keep_templates"), values).fetchall()

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(own_database) as gate, ThreadPoolExecutor() as pool:
        gate.execute("SELECT FROM template WHERE name = 'b' FOR UPDATE")
        both = []
        for order in (names[::-1], names):
            both.append(pool.submit(keep_beside, order))
            wait_until(lambda: runtime.read(waiting, ()) == [(len(both),)], 20, "it waits for the row")
        gate.rollback()
        assert [each.result() for each in both] == [[(2, 0)]] * 2


@pytest.mark.parametrize("at", [NOW * 1000, 1e18, -1e18, float(2**63)])
def test_a_report_with_a_time_that_cannot_be_is_of_now_and_outdoes_no_later_one(shop: ChannelConfig, at: float) -> None:
    keep(shop.id, "777000", [listed()], NOW)
    report(shop, at, status="paused")
    assert state(shop) == ["paused green"]
    report(shop, 0, status="rejected")
    assert state(shop) == ["rejected green"]


def test_a_report_reaches_the_account_in_all_channels_of_the_app_and_in_no_other(own_database: str) -> None:
    secrets = ("--set=app_secret=s", "--set=access_token=t", "--set=verify_token=v")
    ours, theirs = (run("add_app", "whatsapp", "--name", name, *secrets)[0]["public_id"] for name in ("a", "b"))
    mine, twin = add("one", "--app", ours), add("two", "--app", ours)
    others = [add("tri", "--app", theirs), add("four", *OWN)]
    for each in (mine, twin, *others):
        keep(each.id, "777000", [listed(), listed("other")], NOW)
    report(mine, NOW + 1, status="paused")
    report(mine, NOW + 1, account="888000", status="disabled")
    assert [state(each) for each in (mine, twin)] == [["paused green", "approved green"]] * 2
    assert [state(each) for each in others] == [["approved green"] * 2] * 2
    report(mine.with_secrets_of_app(), NOW + 2, status="approved")
    report(msgspec.structs.replace(mine, app_id=0), NOW + 3, status="disabled")
    assert [state(each)[0] for each in (mine, twin)] == ["disabled green", "approved green"]


def test_a_report_survives_the_spool(shop: ChannelConfig) -> None:
    note = Note(reason="news", template=TemplateUpdate(account="1", name="n", language="de", at=NOW, status="paused"))
    request = WebhookRequest(method="POST", url="", headers={}, query={}, body=b"{}")
    line = spool_format.make_line(ParsedRequest(shop, [note, Note(reason="plain")], request))
    parsed = spool_format.unseal(spool_format.read_line(0, line)).parsed
    assert parsed == [note, Note(reason="plain")]


# ---------------------------------------------------------------- fetching


def test_the_command_says_what_it_read_and_changes_nothing_when_it_fails(shop: ChannelConfig, httpserver: Any) -> None:
    Channel.objects.filter(pk=shop.id).update(api_base=httpserver.url_for("").rstrip("/"))
    item = {"language": "de", "components": [{"type": "BODY", "text": "Hi {{1}}"}]}
    statuses = {"one": "APPROVED", "two": "PAUSED"}
    data = [{**item, "name": name, "status": status} for name, status in statuses.items()]
    calls = httpserver.expect_request("/v26.0/777000/message_templates")
    calls.respond_with_json({"data": data})
    line, said = run("fetch_templates", shop.public_id)
    assert line == {"public_id": shop.public_id, "templates": 2, "approved": 1, "deleted": 0}
    assert said == "shop (whatsapp): 2 templates read\n"
    assert state(shop) == ["approved ", "paused "]
    calls.respond_with_json({"error": {"code": 190}}, 401)
    with pytest.raises(CommandError, match=r"^shop \(whatsapp\): message_templates: 190 .* Nothing was changed$"):
        run("fetch_templates", shop.public_id)
    with pytest.raises(CommandError, match="no channel has the public id"):
        run("fetch_templates", "nothing")
    assert len(state(shop)) == 2


# ---------------------------------------------------------------- in a turn

Bot = Callable[[turns.Turn], Any]


def turn(channel: ChannelConfig, bot: Bot, platform: str = "whatsapp") -> turns.Output:
    message = turns.Incoming(id=1, sequence=1, kind="message", text="hi")
    task = turns.Task(conversation_id=1, channel_id=channel.id, bot="b", message=message, contact=turns.Person(),
                      state={}, platform=platform)  # fmt: skip
    return turns.run(bot, task)


def sends(name: str, language: str, values: Any, **more: Any) -> Bot:
    return lambda turn: turn.reply(template=Template(name, language=language, values=values), **more)


def test_a_turn_sends_a_template_that_was_fetched(shop: ChannelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(shop.id, "777000", [listed(), listed(language="en_US")], NOW)
    reads: list[Any] = []
    read = runtime.read
    monkeypatch.setattr(runtime, "read", lambda *statement: (reads.append(statement), read(*statement))[1])
    assert turn(shop, lambda turn: turn.reply("plain")).replies[0].text == "plain"
    assert reads == []

    def twice(turn: turns.Turn) -> None:
        turn.reply(template=Template("order", language="de", values=["7"]))
        turn.reply(template=Template("order", language="en-US", values={"1": "8"}))

    output = turn(shop, twice)
    assert [
        (body.text, body.template.language, body.template.category) for body in output.replies if body.template
    ] == [
        ("Order 7 left.", "de", "utility"),
        ("Order 8 left.", "en_US", "utility"),
    ]
    assert len(reads) == 1


REFUSED: list[tuple[Bot, str]] = [
    (sends("ordr", "de", ["7"]), r"no template 'ordr' was fetched .* \(fetch_templates\), only: bad, order"),
    (sends("a\0", "de", []), "no template 'a.x00' was fetched"),
    (sends("order", "fr", ["7"]), r"'order' \(fr\) does not exist; its languages: de, en_US"),
    (sends("order", "de", []), r"'order' \(de\) takes 1: 1 is missing"),
    (sends("bad", "de", ["7"]), r"'bad' \(de\) is paused: whatsapp sends only approved templates"),
    (sends("order", "de", ["7"], text="hi"), "a template alone"),
    (sends("order", "de", ["7"], choices=["Yes"]), "a template alone"),
]


@pytest.mark.parametrize(("bot", "words"), REFUSED)
def test_what_the_platform_would_refuse_fails_the_turn(shop: ChannelConfig, bot: Bot, words: str) -> None:
    keep(shop.id, "777000", [listed(), listed(language="en_US"), listed("bad", status="paused")], NOW)
    output = turn(shop, bot)
    assert output.error_type.rpartition(".")[2] in ("BadOutput", "ValueError")
    assert not output.replies
    assert re.search(words, output.error_text), output.error_text


def test_a_platform_without_templates_says_so(shop: ChannelConfig) -> None:
    for platform in ("telegram", "generic", "web"):
        output = turn(shop, sends("order", "de", []), platform)
        assert output.error_text == f"{platform} has no templates: send text in place of 'order'"


def test_a_channel_without_any_says_so(shop: ChannelConfig) -> None:
    assert turn(shop, sends("order", "de", [])).error_text.endswith("only: none")


def test_a_status_is_seen_once_the_cache_is_old(shop: ChannelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(shop.id, "777000", [listed()], NOW)
    assert not turn(shop, sends("order", "de", ["7"])).error_type
    report(shop, NOW + 1, status="paused")
    assert not turn(shop, sends("order", "de", ["7"])).error_type
    monkeypatch.setattr(templates, "TEMPLATE_SECONDS", 0.0)
    assert "is paused" in turn(shop, sends("order", "de", ["7"])).error_text
    report(shop, NOW + 2, status="flagged")
    assert not turn(shop, sends("order", "de", ["7"])).error_type


def test_an_http_bot_sends_templates_later_too(shop: ChannelConfig) -> None:
    keep(shop.id, "777000", [listed()], NOW)

    def late(**data: Any) -> Any:
        event = {"type": "reply", "data": {"turn": "turn_1", "key": "k", **data}}
        return read_late(shop, json.dumps(event).encode()).bodies

    good = {"name": "order", "language": "de", "values": ["7"]}
    (body,) = late(template=good)
    assert (body.text, body.template.body) == ("Order 7 left.", (("", "7"),))
    for wrong, words in (
        ({"template": {**good, "values": {}}}, "1 is missing"),
        ({"template": good, "text": "hi"}, "beside it"),
        ({"template": {**good, "lang": "de"}}, "unknown field `lang`"),
        ({"template": {**good, "values": ["\0"]}}, "a NUL"),
    ):
        with pytest.raises(Unreadable, match=words):
            late(**wrong)
