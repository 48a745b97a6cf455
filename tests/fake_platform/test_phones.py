"""What people do on the double's page reaches us as their platform would post it."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from django.core.management import CommandError, call_command

from botproject.local import __main__ as launcher
from channels_ingest import channel_setup
from channels_ingest.fake_platform import demo
from channels_ingest.fake_platform.phones import SAMPLES, Phones, filled
from conversations import registry
from conversations.contracts import ChannelConfig, Entry, OutboundReply, Parsed, ReplyBody, Sent, StatusUpdate, Unusable
from conversations.models import Channel
from tests.kit.desk_scenes import make_lane
from tests.kit.fixtures import CREDENTIALS, OPTIONS, incoming, names
from tests.kit.stack import free_port, wait_until

ADA = SAMPLES["people"][0]
HTTP = urllib3.PoolManager(retries=False)
PLATFORMS = ("telegram", "whatsapp", "generic")


@pytest.fixture
def phones(httpserver: Any) -> Iterator[Phones]:
    """The double of one channel of each platform; ``httpserver`` stands for our web process."""
    httpserver.expect_request(re.compile("/webhooks/.*"), "POST").respond_with_data("ok")
    port = free_port()
    running = Phones([config(platform, port) for platform in PLATFORMS], httpserver.url_for("").rstrip("/"), port)
    threading.Thread(target=running.serve, daemon=True).start()
    yield running
    running.stop()


def config(platform: str, port: int) -> ChannelConfig:
    return ChannelConfig(
        id=1, public_id=platform[0], platform=platform, tenant_id=1, name="Tea", credentials=CREDENTIALS,
        options=OPTIONS.get(platform, {}),
        api_base=f"http://127.0.0.1:{port}" + ("/out" if platform == "generic" else ""),
    )  # fmt: skip


def order(phones: Phones, path: str, body: Any, **headers: str) -> Any:
    answer = HTTP.request("POST", phones.url + path, body=json.dumps(body), headers=headers)
    assert answer.status == 200, answer.data
    return answer.json()


def posted(httpserver: Any, count: int) -> list[tuple[str, list[Parsed]]]:
    """What was posted to us, read by its adapter; each is signed."""
    wait_until(lambda: len(httpserver.log) >= count, 10, "the webhooks are posted")
    found = []
    for request, _ in httpserver.log:
        _, platform, _ = request.path.strip("/").split("/")
        adapter: Any = registry.adapter(platform)
        got = incoming(request.data, **{name.lower(): value for name, value in request.headers.items()})
        assert adapter.verify(config(platform, 0), got)
        found.append((platform, adapter.parse(config(platform, 0), got)))
    return found


# Of an event that is no plain message; "": the adapter says what it is.
KINDS = {
    "press": "button", "pick": "button", "template_press": "button", "reaction": "reaction", "block": "blocked",
    "unblock": "followed", "checkout": "", "paid": "",
}  # fmt: skip
EVENTS = [(platform, event) for platform in PLATFORMS for event in SAMPLES[platform]["events"] if event != "status"]


@pytest.mark.parametrize(("platform", "event"), EVENTS)
def test_what_people_do_is_posted_signed_and_read(phones: Phones, httpserver: Any, platform: str, event: str) -> None:
    content = base64.b64encode(b"bytes").decode()
    file = order(phones, "/_file", {"content": content, "mime_type": "image/png", "name": "tea.png"})["file"]
    values = {"text": "Hello", "file": file, "data": "y", "target": 7 if platform == "telegram" else "m7"}
    order(phones, "/_write", {"channel": platform[0], "event": event, "person": ADA, "values": values})
    ((_, parsed),) = posted(httpserver, 1)
    (entry,) = parsed
    if not KINDS.get(event, "message"):
        assert not isinstance(entry, Unusable)
        return
    assert isinstance(entry, Entry), entry
    assert str(entry.kind) == KINDS.get(event, "message")
    assert entry.sender.user in (str(ADA["user"]), ADA["bsuid"])
    if event in ("picture", "voice", "file"):
        assert [each.file_id or each.url.rsplit("/", 1)[1] for each in entry.attachments] == [file]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_the_tests_keep_can_be_posted(phones: Phones, httpserver: Any, platform: str) -> None:
    for name in names(platform):
        order(phones, "/_fixture", {"channel": platform[0], "name": name})
    assert len(posted(httpserver, len(names(platform)))) == len(names(platform))


def reply(phones: Phones, platform: str) -> Any:
    adapter: Any = registry.adapter(platform)
    out = OutboundReply(key="0f1e", chat=str(ADA["user"]), user="u", address={"to": ADA["phone"]},
                        body=ReplyBody(text="hi"))  # fmt: skip
    return adapter.send(config(platform, phones.port), out)


STATUSES = [
    ("whatsapp", {"do": "ok"}, ["sent", "delivered"], ""),
    ("whatsapp", {"do": "ok", "fails": "131026"}, ["sent", "failed"], "131026"),
    ("generic", {"do": "ok"}, ["sent", "delivered"], ""),
]


@pytest.mark.parametrize(("platform", "rule", "wanted", "error"), STATUSES)
def test_statuses_follow_a_message_and_bring_its_key(
    phones: Phones, httpserver: Any, platform: str, rule: dict[str, Any], wanted: list[str], error: str
) -> None:
    order(phones, "/_write", {"channel": platform[0], "event": "text", "person": ADA, "values": {"text": "Hello"}})
    order(phones, "/_script", [rule])
    sent = reply(phones, platform)
    assert isinstance(sent, Sent)
    if wanted[-1] == "delivered":
        order(phones, "/_status", {"id": sent.platform_id, "status": "read"})
        wanted = [*wanted, "read"]
    statuses = [parsed for _, (parsed,) in posted(httpserver, 1 + len(wanted))[1:]]
    assert all(isinstance(each, StatusUpdate) for each in statuses)
    found = [(each.status, each.key, each.platform_id) for each in statuses]  # type: ignore[union-attr]
    assert found == [(status, "0f1e", sent.platform_id) for status in wanted]
    assert statuses[-1].error.startswith(error)  # type: ignore[union-attr]


def test_the_page_hears_of_everything_in_its_order(phones: Phones, httpserver: Any) -> None:
    order(phones, "/_write", {"channel": "t", "event": "text", "person": ADA, "values": {"text": "Hello"}})
    assert isinstance(reply(phones, "telegram"), Sent)
    order(phones, "/_write", {"channel": "t", "event": "block", "person": ADA, "values": {}})
    reply(phones, "telegram")
    events = HTTP.request("GET", f"{phones.url}/_events?after=0").json()
    heard = [(each["event"], each.get("decision", "")) for each in events if each["event"] != "answered"]
    assert heard == [("wrote", ""), ("called", "ok"), ("sent", "ok"), ("delivered", "ok"), ("wrote", ""),
                     ("called", "403")]  # fmt: skip
    later = HTTP.request("GET", f"{phones.url}/_events?after={len(events)}").json()
    assert {each["event"] for each in later} <= {"answered"}, "what our server says may come at any time"
    about = HTTP.request("GET", f"{phones.url}/_about").json()
    assert [each["platform"] for each in about["channels"]] == list(PLATFORMS)
    for event in ("text", "block", "unblock"):
        order(phones, "/_write", {"channel": "t", "event": event, "person": ADA, "values": {"text": "I am back"}})
        assert isinstance(reply(phones, "telegram"), Sent) == (event != "block"), "whoever writes has unblocked"


def test_a_page_of_another_site_can_neither_write_nor_read(phones: Phones) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": f"evil.example:{phones.port}"}):
        assert HTTP.request("POST", f"{phones.url}/_clear", body="{}", headers=headers).status == 404
        for path in ("/", "/_about", "/_events?after=0"):
            assert HTTP.request("GET", phones.url + path, headers=headers).status == 404
    page = HTTP.request("GET", f"{phones.url}/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_members_without_a_value_are_left_out() -> None:
    assert filled({"a": "$x", "b": ["$y"], "c": {"d": "e"}}, {"y": 0}) == {"b": [0], "c": {"d": "e"}}


# ---------------------------------------------------------------- the commands


def test_it_runs_only_where_local_is_set_and_a_channel_leads_to_it(own_database: str, settings: Any) -> None:
    with pytest.raises(CommandError, match=r"set_channel <public id> --api-base http://127\.0\.0\.1:8010"):
        call_command("fake_platform")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo.set_up(f"http://127.0.0.1:{port}")
        with pytest.raises(CommandError, match="Address already in use"):
            call_command("fake_platform", port=port)
    settings.LOCAL = False
    with pytest.raises(CommandError, match="LOCAL is not set"):
        call_command("fake_platform")


def test_the_demos_channels_are_made_once_and_follow_the_port(own_database: str) -> None:
    demo.set_up("http://127.0.0.1:8010")
    before = {row.platform: (row.public_id, row.sealed) for row in Channel.objects.all()}
    assert set(before) == set(PLATFORMS)
    demo.set_up("http://127.0.0.1:8011")
    assert {row.platform: (row.public_id, row.sealed) for row in Channel.objects.all()} == before
    bases = {row.platform: row.api_base for row in Channel.objects.all()}
    assert bases == {**dict.fromkeys(PLATFORMS, "http://127.0.0.1:8011"), "generic": "http://127.0.0.1:8011/generic"}


def test_the_demo_is_played_once_and_its_people_stay_known(
    own_database: str, httpserver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    demo.set_up(f"http://127.0.0.1:{port}")
    rows = list(Channel.objects.all())
    make_lane("handled", channel=rows[0])
    double = Phones([channel_setup.config(row) for row in rows], httpserver.url_for("").rstrip("/"), port)
    threading.Thread(target=double.serve, daemon=True).start()
    monkeypatch.setattr(double, "write", lambda *step: pytest.fail(f"played again: {step}"))
    demo.play(double)
    assert all(double.world.knows(token, str(ADA["user"])) for token in double.world.accounts)
    double.stop()


@pytest.mark.parametrize("phones_port", [0, 8010])
def test_make_demo_runs_the_double_beside_web_and_worker(tmp_path: Path, phones_port: int) -> None:
    (tmp_path / "admin_password").write_text("secret")
    found = {command.name: command.argv[-1] for command in launcher.commands(tmp_path, 8000, phones_port)}
    shown = "http://127.0.0.1:8010/" in launcher.welcome(tmp_path, 8000, phones_port)
    assert (list(found), shown) == (["web", "worker", *(["phones"] if phones_port else [])], bool(phones_port))
    if phones_port:
        assert found["phones"].endswith("manage.py fake_platform --demo --port 8010")
