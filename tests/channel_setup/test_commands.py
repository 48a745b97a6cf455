"""Setting channels up from the command line, on the real database."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from channels_ingest.channel_setup import config
from conversations import runtime
from conversations.models import Audit, Channel, Installation, Pause
from conversations.models.channels import new_public_id
from tests.kit.doubles import Double
from tests.kit.fixtures import CREDENTIALS

pytestmark = pytest.mark.usefixtures("own_database")  # commands and the core look at the same one
TOKEN = "test_secret-Token-0123456789"
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


# What a channel of a platform must have.
OUT = "http://127.0.0.1:9/"
IDS = {"phone_number_id": "55500", "waba_id": "77700"}
META = {"access_token": "T", "app_secret": "a" * 32, "verify_token": "v", **IDS}
NEEDED = {
    "telegram": {"token": "1:A"},
    "generic": {"secret": CREDENTIALS["secret"], "outbound_url": OUT},
    "whatsapp": META,
}


def add(platform: str = "telegram", name: str = "shop", *more: str) -> Channel:
    given = {word.partition("=")[0] for word in more}
    needed = [f"--set={key}={value}" for key, value in NEEDED[platform].items() if key not in given]
    line = json.loads(run("add_channel", platform, "--name", name, *needed, *more))
    return Channel.objects.get(pk=line["id"])


def test_add_channel_prints_one_line_and_keeps_secrets_sealed() -> None:
    line = json.loads(run("add_channel", "telegram", "--name", "shop", "--tenant", "acme", "--set", "token=1:SECRET",
                          "--set", f"secret_token={TOKEN}"))  # fmt: skip
    channel = Channel.objects.get(pk=line["id"])
    assert line == {"id": channel.pk, "public_id": channel.public_id,
                    "webhook_path": f"/webhooks/telegram/{channel.public_id}/"}  # fmt: skip
    assert channel.open_credentials() == {"token": "1:SECRET", "secret_token": TOKEN}
    assert "SECRET" not in json.dumps(channel.sealed)
    assert (channel.tenant.name, channel.bot, channel.active) == ("acme", "echo", True)


def test_values_come_from_the_environment_or_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "1:ENV")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
    channel = add("telegram", "shop", "--set", "token=env:MY_TOKEN", "--set", "secret_token=-")
    assert channel.open_credentials() == {"token": "1:ENV", "secret_token": TOKEN}


def test_a_secret_that_is_ours_to_invent_is_invented() -> None:
    assert len(add().open_credentials()["secret_token"]) >= 32


WRONG = [
    (("telegram", "--set", "tokken=1"), "no setting 'tokken'; known: token"),
    (("telegram", "--set", "token"), "KEY=VALUE"),
    (("telegram", "--set", "token=..."), "token cannot be that"),
    (("telegram", "--set", "token=env:NOT_THERE"), "no NOT_THERE"),
    (("telegram", "--set", "secret_token=with space"), "secret_token cannot be that"),
    (("telegram", "--set", "secret_token=a"), "secret_token can be guessed"),
    (("telegram", "--set", "secret_token=0123456789012345678901"), "secret_token can be guessed"),
    (("telegram", "--set", f"secret_token={'a' * 64}"), "secret_token can be guessed"),
    (("web", "--set", "identify_secret=a"), "identify_secret can be guessed"),
    (("telegram", "--set", "bot_secret=whsec_"), "bot_secret cannot be that"),
    (("generic", "--set", "secret=abc"), "secret cannot be that"),
    (("generic", "--set", "secret=whsec_QUJDREVGR0hJSktMTU5P"), "secret cannot be that"),
    (("generic", "--set", f"secret=whsec_{'A' * 25}"), "secret: the secret is not base64"),
    (("generic", "--set", "key_life_s=soon"), "key_life_s cannot be that"),
    (("telegram", "--set", "key_life_s=5"), "no setting 'key_life_s'"),
    (("telegram", "--set", "wait_for=sent"), "no setting 'wait_for'"),
    (("whatsapp", "--set", "wait_for=read"), "wait_for cannot be that"),
    (("whatsapp", "--set", "wait_for_s=61"), "wait_for_s cannot be that"),
    (("telegram", "--set", "settle_ms=2001"), "at most 2000"),
    (("telegram", "--set", "settle_ms=-1"), "settle_ms cannot be that"),
    (("telegram", "--set", "parked_policy=maybe"), "block, skip or human"),
    (("telegram", "--set", "limits=fast"), "limits cannot be that"),
    (("telegram", "--bot", "nobody"), "no bot named 'nobody'"),
    (("smoke_signals",), "no adapter for 'smoke_signals'"),
    (("telegram", "--api-base", "ftp://x"), "^ftp://x is not an http or https URL$"),
    (("telegram", "--api-base", "https://user:word@host"), "is not an http or https URL$"),
    (("telegram",), r"^a telegram channel with the bot 'echo' also needs --set token=\.\.\. \("),
    (("generic",), r"needs --set secret=\.\.\. \(whsec_ .*\), --set outbound_url=\.\.\. \(where replies .*\)$"),
    (("telegram", "--bot", "http", "--set", "token=1:A"), r"--set bot_secret=.*, --set bot_url=\.\.\. \(URL of .*\)$"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_a_wrong_option_is_refused_and_the_possible_values_are_named(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run("add_channel", *arguments, "--name", "x")
    assert not Channel.objects.exists()


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:9000", "https://10.0.0.1", "https://localhost", "http://api.example.org",
])  # fmt: skip
def test_a_private_api_base_needs_leave(url: str, settings: Any) -> None:
    settings.ALLOW_PRIVATE_OUTBOUND = False
    with pytest.raises(CommandError, match="ALLOW_PRIVATE_OUTBOUND is off"):
        run("add_channel", "telegram", "--name", "x", "--api-base", url)
    settings.ALLOW_PRIVATE_OUTBOUND = True
    assert add("telegram", "x", "--api-base", url).api_base == url


def test_options_are_kept_with_their_types() -> None:
    channel = add("telegram", "x", "--set", "settle_ms=500", "--set", "limits=channel:80/1s,chat:1/1s,group:20/60s",
                  "--set", "sorry_text=Sorry!")  # fmt: skip
    assert channel.options == {"settle_ms": 500, "limits": "channel:80/1s,chat:1/1s,group:20/60s",
                               "sorry_text": "Sorry!"}  # fmt: skip


def test_the_same_name_twice_is_refused() -> None:
    add()
    with pytest.raises(CommandError, match="already has a telegram channel named 'shop'"):
        add()


def test_set_channel_changes_one_and_the_audit_names_credentials_without_values() -> None:
    channel = add()
    values = ("--set", "token=9:NEW", "--set", "secret_token_previous=old")
    run("set_channel", channel.public_id, *values, "--active", "no")
    channel.refresh_from_db()
    assert channel.open_credentials()["token"] == "9:NEW"
    assert config(channel).secrets("secret_token")[1] == "old"
    assert not channel.active
    entry = Audit.objects.get(verb="change channel")
    assert (entry.subject, entry.tenant_id) == (f"channel {channel.public_id}", channel.tenant_id)
    assert entry.changes == {"secret_token_previous": None, "token": None, "active": [True, False]}
    assert json.loads(run("set_channel", channel.public_id, "--set", "token=9:NEW"))["result"] == "unchanged"


def test_the_audit_says_where_outbound_calls_went_and_go() -> None:
    channel = add("telegram", "shop", "--api-base", "http://127.0.0.1:1/")
    run("set_channel", channel.public_id, "--api-base", "http://127.0.0.1:2/", "--set", "settle_ms=500")
    added, changed = Audit.objects.order_by("id")
    assert added.changes["api_base"] == [None, "http://127.0.0.1:1/"]
    assert changed.changes == {"api_base": ["http://127.0.0.1:1/", "http://127.0.0.1:2/"], "settle_ms": [None, 500]}


def test_an_empty_value_takes_a_setting_away() -> None:
    channel = add("telegram", "x", "--set", "secret_token_previous=old")
    run("set_channel", channel.public_id, "--set", "secret_token_previous=")
    channel.refresh_from_db()
    assert "secret_token_previous" not in channel.open_credentials()


def test_set_channel_of_nothing_says_so() -> None:
    with pytest.raises(CommandError, match="see list_channels"):
        run("set_channel", "nothing", "--set", "token=1")


def test_list_channels_shows_no_secret() -> None:
    channel = add("telegram", "shop", "--set", f"secret_token={TOKEN}")
    for output in (run("list_channels"), run("list_channels", "--json")):
        assert channel.public_id in output
        assert TOKEN not in output
    described = json.loads(run("list_channels", "--json"))
    assert (described["credentials"], described["missing"]) == (["secret_token", "token"], [])


def test_an_incomplete_channel_is_shown_by_list_channels_and_by_check() -> None:
    channel = add("generic", "x")
    run("set_channel", channel.public_id, "--bot", "http", "--set", "outbound_url=")
    assert json.loads(run("list_channels", "--json"))["missing"] == ["outbound_url", "bot_url"]
    out = io.StringIO()
    call_command("check", stderr=out)
    assert "channel 'x' lacks outbound_url, bot_url" in out.getvalue()
    assert f"manage.py set_channel {channel.public_id} --set outbound_url=... --set bot_url=..." in out.getvalue()
    run("set_channel", channel.public_id, "--api-base", "http://127.0.0.1:9/", "--bot", "echo")
    assert json.loads(run("list_channels", "--json"))["missing"] == []


def test_check_refuses_a_stored_key_that_signs_nothing() -> None:
    """What it signed was accepted by the version before: the release must stop, or webhooks are answered 401."""
    channel = add("generic", "x")
    channel.set_credentials({"secret_previous": "whsec_QUJDREVGR0hJSktMTU5P"})  # 15 bytes
    channel.save()
    with pytest.raises(CommandError, match="channel 'x': secret_previous signs and verifies nothing") as refused:
        call_command("check", stderr=io.StringIO())
    assert "QUJD" not in str(refused.value)
    run("set_channel", channel.public_id, "--set", "secret_previous=")
    call_command("check", stderr=io.StringIO())


@pytest.mark.parametrize("keys", [[], ["no key"]])
def test_check_without_a_usable_credentials_key_says_so(settings: Any, keys: list[str]) -> None:
    add("generic", "x")
    settings.CREDENTIALS_KEYS = keys
    with pytest.raises(CommandError, match="CREDENTIALS_KEYS"):
        call_command("check", stderr=io.StringIO())


TWO_CHANNELS = """
[[channel]]
name = "a"
platform = "telegram"
[channel.set]
token = "env:T"
settle_ms = 100

[[channel]]
tenant = "acme"
name = "b"
platform = "generic"
active = false
"""


def test_apply_channels_twice_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", "1:A")
    file = tmp_path / "channels.toml"
    file.write_text(TWO_CHANNELS)
    results = [[json.loads(line)["result"] for line in run("apply_channels", str(file)).splitlines()] for _ in range(2)]
    assert results == [["created", "created"], ["unchanged", "unchanged"]]
    monkeypatch.setenv("T", "1:B")
    assert '"changed"' in run("apply_channels", str(file))
    assert Channel.objects.get(name="a").open_credentials()["token"] == "1:B"
    assert Audit.objects.filter(verb="change channel").count() == 1


@pytest.mark.parametrize("content", [
    "[[channel]]\nname='a'\n", "[[channel", "[[channel]]\nname='a'\nplatform='telegram'\ncolour='red'\n",
])  # fmt: skip
def test_a_file_that_cannot_be_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "channels.toml"
    file.write_text(content)
    with pytest.raises(CommandError):
        run("apply_channels", str(file))


def test_register_webhook_tells_telegram_everything(settings: Any) -> None:
    settings.PUBLIC_URL = "https://bots.example.org"
    Installation.objects.update(public_url=settings.PUBLIC_URL)
    with Double() as double:
        channel = add("telegram", "shop", "--set", "token=4242:T", "--api-base", double.url)
        run("register_webhook", channel.public_id)
        (call,) = double.calls("setWebhook")
        double.script({"do": "401", "method": "getMe"})
        with pytest.raises(CommandError, match="401 Unauthorized"):
            run("register_webhook", channel.public_id)
    channel.refresh_from_db()
    assert call["body"]["url"] == f"https://bots.example.org{channel.webhook_path}"
    assert call["body"]["secret_token"] == channel.open_credentials()["secret_token"]
    assert {"message", "message_reaction", "chat_member", "callback_query"} <= set(call["body"]["allowed_updates"])
    assert channel.options["username"] == "double_bot"


def test_register_webhook_tells_whatsapp_our_address(settings: Any) -> None:
    with Double() as double:
        channel = add("whatsapp", "shop", "--api-base", double.url)
        assert json.loads(run("register_webhook", channel.public_id)) == {"success": True}
        (call,) = double.calls("subscribed_apps")
    assert call["body"]["override_callback_uri"] == settings.PUBLIC_URL + channel.webhook_path


def test_register_webhook_on_a_copy_must_be_meant(settings: Any) -> None:
    with Double() as double:
        channel = add("telegram", "shop", "--set", "token=4242:T", "--api-base", double.url)
        settings.PUBLIC_URL = "https://staging.example"
        runtime.begin()
        with pytest.raises(CommandError, match=r"belongs to .*--although-held"):
            run("register_webhook", channel.public_id)
        assert double.calls() == []
        run("register_webhook", channel.public_id, "--although-held")
        assert len(double.calls("setWebhook")) == 1


def test_register_webhook_of_another_platform_says_where() -> None:
    with pytest.raises(CommandError, match="where the account is managed"):
        run("register_webhook", add("generic", "x").public_id)


def test_no_public_id_looks_like_an_option_of_a_command() -> None:
    assert not [made for made in (new_public_id() for _ in range(2_000)) if made.startswith("-")]


def test_send_webhook_posts_a_signed_fixture(httpserver: Any) -> None:
    channel = add("generic", "x", "--set", f"secret={CREDENTIALS['secret']}")
    httpserver.expect_request(channel.webhook_path).respond_with_data("ok")
    base = httpserver.url_for("")
    run("send_webhook", "text", "--channel", channel.public_id, "--url", base, "--times", "2", "--fresh", "--set",
        "text=other words")  # fmt: skip
    first, second = (json.loads(sent.data)["data"] for sent, _ in httpserver.log)
    assert first["text"] == second["text"] == "other words"
    assert first["message_id"] != second["message_id"]
    httpserver.clear()
    httpserver.expect_request(channel.webhook_path).respond_with_data("", status=503)
    with pytest.raises(CommandError, match="1 of 1 were refused"):
        run("send_webhook", "truncated", "--channel", channel.public_id, "--url", base)
    with pytest.raises(CommandError, match="known for generic: batch"):
        run("send_webhook", "nothing", "--channel", channel.public_id)


WRONG_MEMBERS = [
    ("foo.bar=x", "the fixture has no 'foo.bar'"),
    ("data.nothing.text=x", "the fixture has no 'data.nothing.text'"),
    ("data.text.deeper=x", "the fixture has no 'data.text.deeper'"),
    ("nowhere=x", "the fixture has no 'nowhere'"),
    ("data.seq=many", "data.seq is JSON in the fixture, and 'many' is not"),
    ("text", "--set takes NAME=VALUE, not 'text'"),
]


@pytest.mark.parametrize(("pair", "words"), WRONG_MEMBERS)
def test_send_webhook_says_which_member_is_wrong(pair: str, words: str, tmp_path: Path) -> None:
    channel = add("generic", "x", "--set", f"secret={CREDENTIALS['secret']}")
    fixture = tmp_path / "body.json"
    fixture.write_text('{"type": "message", "data": {"text": "hello", "seq": 1, "list": ["a"]}}')
    with pytest.raises(CommandError, match=re.escape(words)):
        run("send_webhook", str(fixture), "--channel", channel.public_id, "--set", pair)


def test_send_webhook_says_which_file_is_not_json(tmp_path: Path) -> None:
    channel = add("generic", "x", "--set", f"secret={CREDENTIALS['secret']}")
    (tmp_path / "body.json").write_text("{")
    with pytest.raises(CommandError, match=r"body\.json is not JSON"):
        run("send_webhook", str(tmp_path / "body.json"), "--channel", channel.public_id)


@pytest.mark.parametrize("stops", ["sending", "handling"])
def test_new_credentials_end_a_pause_but_not_one_by_staff(stops: str) -> None:
    channel, stopped = add(), add("telegram", "other")
    for each, by_staff in ((channel, False), (stopped, True)):
        Pause.objects.create(scope="channel", target=str(each.pk), stops=stops, reason="401 Unauthorized",
                             since=timezone.now(), by_staff=by_staff)  # fmt: skip
        runtime.begin()
        run("set_channel", each.public_id, "--set", "token=9:NEW")
    assert [pause.target for pause in Pause.objects.all()] == [str(stopped.pk)]


def test_another_bot_ends_a_pause_of_handling_only() -> None:
    channel = add()
    for stops in ("sending", "handling"):
        Pause.objects.create(scope="channel", target=str(channel.pk), stops=stops, since=timezone.now())
    runtime.begin()
    run("set_channel", channel.public_id, "--bot", "demo")
    assert [pause.stops for pause in Pause.objects.all()] == ["sending"]


def test_documents_register_the_webhook_of_a_channel_that_they_add() -> None:
    texts = {path.name: path.read_text() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
    adding = {name: text for name, text in texts.items() if "manage.py add_channel telegram" in text}
    assert "deploy.md" in adding
    assert [name for name, text in adding.items() if "register_webhook" not in text] == []
