"""One app, many channels: what its one webhook brings is stored under the channel that it is for, and no other."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.utils import timezone

from channels_ingest.webhooks import exchange
from channels_ingest.webhooks.failed_attempts import FailedAttempts
from conversations import registry, runtime
from conversations.contracts import Entry, Kind, Sender, WebhookRequest
from conversations.models import App, Audit, Channel, Pause, Tenant
from conversations.storing import spool, spool_drainer
from conversations.storing.rows import ParsedRequest
from tests.kit.numbers import ADAPTERS, post, says

_names = itertools.count(1)


@pytest.fixture(autouse=True)
def _platform(own_database: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ADAPTERS = {**settings.ADAPTERS, **ADAPTERS}
    monkeypatch.setattr(exchange, "failed_attempts", FailedAttempts())


def run(*arguments: str) -> Any:
    """The JSON line of a command, after which no process has old channels in memory."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    registry.forget_channels()
    return json.loads(out.getvalue())


def add_app(secret: str = "s1", *more: str) -> str:
    """A new app; its public id."""
    pairs = (f"--set=app_secret={secret}", "--set=access_token=t")
    return str(run("add_app", "numbers", "--name", f"app {next(_names)}", *pairs, *more)["public_id"])


def add(number: str, *more: str, tenant: str = "Shop") -> Channel:
    name = f"{tenant} {next(_names)}"
    line = run("add_channel", "numbers", "--name", name, "--tenant", tenant, f"--set=number_id={number}", *more)
    return Channel.objects.get(pk=line["id"])


def rows(query: str, *values: Any) -> list[tuple[Any, ...]]:
    return runtime.read(query, values)


def stored(channel: Channel) -> list[str]:
    """Texts of a channel, lane by lane in order."""
    query = """SELECT m.text FROM message m JOIN conversation c ON c.id = m.conversation_id
                WHERE c.channel_id = %s ORDER BY c.chat, m.sequence"""
    return [text for (text,) in rows(query, channel.pk)]


def set_aside() -> list[tuple[str, Any]]:
    query = "SELECT reason, body FROM quarantine ORDER BY receipt_id, entry"
    return [(reason, json.loads(bytes(body))) for reason, body in rows(query)]


def kept(channel: Channel) -> list[Any]:
    """The lines of the bodies that a channel's receipts keep."""
    query = """SELECT b.body FROM receipt_body b JOIN receipt r ON r.id = b.receipt_id
                WHERE r.channel_id = %s ORDER BY r.id"""
    return [json.loads(line) for (body,) in rows(query, channel.pk) for line in bytes(body).splitlines()]


# ---------------------------------------------------------------- whose entry it is


def test_entries_are_stored_under_the_channel_that_they_name_in_the_requests_order() -> None:
    app = add_app()
    ours, theirs = add("1", "--app", app), add("2", "--app", app, tenant="Bank")
    items = [says("1", "a"), says("2", "p"), says("1", "b"), says("2", "q"), says("2", "p"), says("2", "r", "bo")]
    assert post(ours, "s1", *items) == 200
    assert (stored(ours), stored(theirs)) == (["a", "b"], ["p", "q", "r"])
    receipts = "SELECT channel_id, stored, duplicates, noted, quarantined FROM receipt ORDER BY id"
    assert rows(receipts) == [(ours.pk, 2, 0, 0, 0), (theirs.pk, 3, 1, 0, 0)]
    for channel, number in ((ours, "1"), (theirs, "2")):  # no tenant has a byte of another one
        assert kept(channel) == [item for item in items if item["to"] == number]
    assert post(theirs, "s1", *items[1:]) == 200  # its own URL
    assert (stored(ours), stored(theirs)) == (["a", "b"], ["p", "q", "r"])
    assert set_aside() == []


def test_what_names_no_channel_of_the_app_is_set_aside_with_its_bytes_and_answered_200() -> None:
    app = add_app()
    own = "--set=app_secret=x", "--set=access_token=t"
    ours, off, moved = add("1", "--app", app), add("7", "--app", app), add("5", "--app", app)
    of_another_app = add("2", "--app", add_app("s2"))
    without, foreign = add("3", *own), add("4", *own, tenant="Bank")
    run("set_channel", off.public_id, "--active", "no")
    run("set_channel", moved.public_id, "--app", "", "--set=app_secret=x")
    tenants_own = add_app("s3", "--tenant", "Shop")
    Channel.objects.filter(pk=foreign.pk).update(app=App.objects.get(public_id=tenants_own))
    alone = add("8", "--app", tenants_own)
    assert post(ours, "s1", *(says(to, f"to {to}") for to in ("7", "2", "3", "5", "9", "\0"))) == 200
    assert post(alone, "s3", says("4", "to 4"), says("8", "to 8")) == 200
    assert (stored(off), stored(alone)) == (["to 7"], ["to 8"])
    assert [stored(each) for each in (ours, of_another_app, without, moved, foreign)] == [[]] * 5
    expected = ["2", "3", "5", "9", "\0", "4"]
    found = [(reason.replace("�", "\0"), item["text"]) for reason, item in set_aside()]
    assert found == [(f"message for an unknown number: {to}", f"to {to}") for to in expected]


def test_what_cannot_be_read_is_set_aside_under_the_channel_that_it_is_for() -> None:
    app = add_app()
    ours, theirs, sister = add("1", "--app", app), add("2", "--app", app, tenant="Bank"), add("3", "--app", app)
    assert post(ours, "s1", {"to": "2"}, {"to": "9"}, says("1", "a")) == 200
    bodies = rows("SELECT channel_id, body FROM quarantine ORDER BY receipt_id")
    assert bodies == [(theirs.pk, b'{"to": "2"}'), (ours.pk, b'{"to": "9"}')]
    assert post(ours, "s1", says("1", "b"), says("3", "c")) == 200
    assert (kept(ours)[-1], kept(sister)) == ([says("1", "b"), says("3", "c")], [says("3", "c")])


def test_two_apps_that_name_the_same_number_reach_their_own_channel_only() -> None:
    one, two = add_app("s1"), add_app("s2")
    first, second = add("1", "--app", one), add("1", "--app", two)
    other = add("2", "--app", two)
    assert post(other, "s2", says("1", "x")) == 200
    assert (stored(first), stored(second)) == ([], ["x"])
    assert [post(first, "s2", says("1", "y")), post(other, "s1", says("2", "y"))] == [401, 401]


def test_a_secret_of_one_channel_reaches_that_channel_only() -> None:
    app = add_app("s1", "--set=app_secret_previous=s0")
    own, other = add("1", "--app", app, "--set=app_secret=mine"), add("2", "--app", app)
    assert [post(own, secret, says("1", "no")) for secret in ("s1", "s0")] == [401, 401]
    assert post(other, "mine", says("2", "no")) == 401
    assert post(own, "mine", says("1", "yes"), says("2", "no")) == 200
    assert (stored(own), stored(other)) == (["yes"], [])
    assert [reason for reason, _ in set_aside()] == ["message for an unknown number: 2"]


def test_statuses_reach_the_replies_of_the_channel_that_they_name() -> None:
    app = add_app()
    ours, other = add("1", "--app", app), add("2", "--app", app)
    assert post(other, "s1", says("2", "hello")) == 200
    ((lane,),) = rows("SELECT id FROM conversation")
    runtime.execute("""INSERT INTO reply (conversation_id, channel_id, sequence, body, status, platform_id, settled_at)
           VALUES (%s, %s, 1, '{}', 'sent', 'w1', now())""", (lane, other.pk))  # fmt: skip
    told = [{"to": to, "status": "read", "reply": "w1"} for to in ("1", "2", "9")]
    assert post(ours, "s1", *told) == 200
    assert rows("SELECT delivered FROM reply") == [("read",)]
    newest = rows("SELECT channel_id, noted, quarantined FROM receipt ORDER BY id DESC LIMIT 2")
    assert newest == [(other.pk, 1, 0), (ours.pk, 2, 0)]


def test_a_channel_whose_credentials_cannot_be_decrypted_holds_up_no_other() -> None:
    app = add_app()
    ours, broken = add("1", "--app", app), add("2", "--app", app)
    Channel.objects.filter(pk=broken.pk).update(sealed={"access_token": "2:broken"})
    assert post(ours, "s1", says("2", "a"), says("1", "b")) == 200
    assert (stored(ours), stored(broken)) == (["b"], ["a"])


def test_all_channels_that_a_request_names_are_read_at_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    app = add_app()
    add("1", "--app", app), add("2", "--app", app)
    app_id, read = App.objects.get().pk, runtime.read
    asked: list[Any] = []
    monkeypatch.setattr(runtime, "read", lambda *statement: (asked.append(statement), read(*statement))[1])
    monkeypatch.setattr(registry, "CHANNEL_SECONDS", 1_000)
    for _ in range(2):
        assert set(registry.channels_of_app(app_id, {"1", "2", "9", "\0"})) == {"1", "2"}
    assert len(asked) == 1
    registry.forget_channels()
    assert set(registry.channels_of_app(app_id, {"2"})) == {"2"}
    assert registry.channels_of_app(0, {"2"}) == {}
    assert len(asked) == 2


def test_from_the_spool_entries_reach_their_channel_too(settings: Any, tmp_path: Any) -> None:
    app = add_app()
    ours, other = add("1", "--app", app), add("2", "--app", app)
    settings.SPOOL_DIR = str(tmp_path / "spool")
    spool.prepare(settings.SPOOL_DIR)
    config = registry.channel(ours.pk)
    assert config is not None
    person = Sender(user="ada")
    entry = Entry(kind=Kind.MESSAGE, chat="ada", sender=person, key="m:1", starts_turn=True, text="x", channel_ref="2")
    incoming = WebhookRequest(method="POST", url="", headers={}, query={}, body=b"x")
    assert spool.append(ParsedRequest(config, [entry], incoming))
    assert spool_drainer.Drainer().run()
    assert (stored(ours), stored(other)) == ([], ["x"])
    orders = [spool_drainer._order(ParsedRequest(each, [], incoming)) for each in (
        config, msgspec.structs.replace(config, id=-1), msgspec.structs.replace(config, id=config.app_id, app_id=0)
    )]  # fmt: skip
    assert orders[0] == orders[1] != orders[2], "what one line holds back is all of its app"


# ---------------------------------------------------------------- setting up


def test_an_apps_secrets_rotate_and_end_the_pauses_of_its_channels() -> None:
    app = add_app("old")
    ours, alone = add("1", "--app", app), add("2", "--set=app_secret=x", "--set=access_token=t")
    for channel in (ours, alone):
        Pause.objects.create(scope="channel", target=str(channel.pk), stops="sending", since=timezone.now())
    runtime.begin()
    pairs = ("--set=app_secret_previous=old", "--set=app_secret=new")
    assert run("set_app", app, *pairs)["result"] == "changed"
    assert run("set_app", app, *pairs)["result"] == "unchanged"
    assert [post(ours, secret, says("1", secret)) for secret in ("old", "new", "x")] == [200, 200, 401]
    assert [pause.target for pause in Pause.objects.all()] == [str(alone.pk)]
    run("set_app", app, "--set=app_secret_previous=")
    assert post(ours, "old", says("1", "again")) == 401


def test_an_app_is_sealed_audited_and_shown_without_its_secrets() -> None:
    app = App.objects.get(public_id=add_app("hidden", "--tenant", "Shop"))
    channel = add("1", "--app", app.public_id)
    assert app.open_credentials()["app_secret"] == "hidden"
    assert "hidden" not in json.dumps(app.sealed)
    assert set(app.sealed) == {"app_secret", "access_token", "verify_token"}
    assert channel.sealed == {}, "what the app has is not generated once more"
    entry = Audit.objects.get(verb="add app")
    assert (entry.subject, entry.tenant_id) == (f"app {app.public_id}", app.tenant_id)
    assert entry.changes == dict.fromkeys(app.sealed)
    listed = run("list_channels", "--json")
    assert (listed["app"], listed["credentials"], listed["missing"]) == (app.public_id, [], [])
    assert listed["inherited"] == sorted(app.sealed)
    shown = {"tenant": "Shop", "credentials": sorted(app.sealed), "channels": [channel.name]}
    assert run("list_apps", "--json").items() >= {"public_id": app.public_id, **shown}.items()
    table = io.StringIO()
    call_command("list_apps", stdout=table)
    assert app.public_id in table.getvalue()
    assert "hidden" not in table.getvalue()


WRONG = [
    (("add_app", "telegram", "--name", "x", "--set=token=1:A"), "telegram has no apps"),
    (("add_app", "numbers", "--name", "x", "--set=number_id=1"), "number_id: a setting of each channel"),
    (("add_app", "numbers", "--name", "app"), "the name is taken"),
    (("set_app", "nothing"), "no app has the public id 'nothing'; see list_apps"),
    (("add_channel", "numbers", "--name", "x", "--app", "nothing"), "no app has the public id 'nothing'"),
    (("add_channel", "telegram", "--name", "x", "--app", "SHARED"), "another platform's or another tenant's"),
    (("add_channel", "numbers", "--name", "x", "--tenant", "Bank", "--app", "SHOPS"), "or another tenant's"),
    (("add_channel", "numbers", "--name", "x", "--app", "SHARED"), r"also needs .*--set number_id=\.\.\."),
    (("add_channel", "numbers", "--name", "x", "--app", "SHARED", "--set=number_id=1"), "channel with this number_id"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_what_an_app_cannot_be_is_refused(arguments: tuple[str, ...], words: str) -> None:
    shared = str(run("add_app", "numbers", "--name", "app", "--set=app_secret=s", "--set=access_token=t")["public_id"])
    shops = add_app("s", "--tenant", "Shop")
    add("1", "--app", shared)
    with pytest.raises(CommandError, match=words):
        run(*(shared if word == "SHARED" else shops if word == "SHOPS" else word for word in arguments))


def test_the_database_takes_a_number_once_per_app() -> None:
    channel = add("1", "--app", add_app())
    tenant = Tenant.objects.get(name="Shop")
    with pytest.raises(IntegrityError, match="channel_once_per_app"):
        Channel.objects.create(tenant=tenant, platform="numbers", name="twin", app=channel.app, external_id="1")
