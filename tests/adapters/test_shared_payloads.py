"""The shared sample payloads, where they lie beside the checkout, read as their table says."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import time_machine

from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.telegram.adapter import Telegram
from conversations.contracts import ChannelConfig, Entry, Kind, Note, StatusUpdate, WebhookRequest

PAYLOADS = Path(__file__).resolve().parents[2].parent / "shared" / "payloads"
ADAPTERS = {"telegram": Telegram(), "generic": Generic(), "whatsapp": WhatsApp()}
THEIR_KINDS = {Kind.UNSUPPORTED: "message", Kind.CHAT_MIGRATED: "identity_change"}

pytestmark = pytest.mark.skipif(not PAYLOADS.is_dir(), reason="no shared payloads beside this checkout")


def load(name: str) -> Any:
    path = PAYLOADS / name
    return json.loads(path.read_text()) if path.exists() else []


CASES = [case for case in load("expected.json") if case["platform"] in ADAPTERS]
SIGNATURES = load("SIGNATURES.json")


def channel(platform: str) -> ChannelConfig:
    keys = SIGNATURES["keys"]
    secrets = {"secret_token": keys["telegram"]["secret_token"], "secret": keys["standard_webhooks_secret"],
               "app_secret": keys["meta_app_secret"]}  # fmt: skip
    number = {"phone_number_id": "1"}  # no payload's own: each entry says to which number it came
    return ChannelConfig(id=1, public_id="p", platform=platform, tenant_id=1, credentials=secrets, options=number)


def request(case: dict[str, Any]) -> WebhookRequest:
    headers = {name.lower(): value for name, value in SIGNATURES["headers"][case["file"]].items()}
    body = (PAYLOADS / case["file"]).read_bytes()
    return WebhookRequest(method="POST", url="", headers=headers, query={}, body=body)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_shared_payloads_are_read_as_their_table_says(case: dict[str, Any]) -> None:
    parsed = ADAPTERS[case["platform"]].parse(channel(case["platform"]), request(case))
    once = list({getattr(each, "key", "") or str(each): each for each in parsed}.values())  # storing drops a repeat
    parsed = once if "count" in case["items"][0] else parsed
    assert len(parsed) == len(case["items"])
    for got, wanted in zip(parsed, case["items"], strict=True):
        compare(got, wanted)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_shared_payloads_verify_with_their_headers_and_with_no_other_byte(case: dict[str, Any]) -> None:
    adapter, incoming = ADAPTERS[case["platform"]], request(case)
    with time_machine.travel(int(SIGNATURES["keys"]["standard_webhooks_timestamp"])):
        assert adapter.verify(channel(case["platform"]), incoming)
        if case["platform"] != "telegram":
            changed = msgspec.structs.replace(incoming, body=incoming.body + b" ")
            assert not adapter.verify(channel(case["platform"]), changed)


def test_shared_payloads_are_all_of_our_platforms() -> None:
    files = {f"{folder}/{path.name}" for folder in ADAPTERS for path in (PAYLOADS / folder).iterdir()}
    assert files == {case["file"] for case in CASES}


def compare(got: Any, wanted: dict[str, Any]) -> None:
    if wanted["kind"] in ("ignored", "echo", "error"):
        assert isinstance(got, Note)
        assert wanted["kind"] != "error" or wanted["text"] in got.reason
    elif wanted["kind"] == "status":
        assert isinstance(got, StatusUpdate)
        assert f"{got.platform_id}|{got.status}" == wanted["dedupe"]
        assert got.chat == wanted["chat"]
        assert got.key == wanted.get("outbox", "" if "channel" in wanted else got.key)
        assert got.error.startswith(wanted.get("error", ""))
    else:
        assert isinstance(got, Entry)
        compare_entry(got, wanted)


def compare_entry(got: Entry, wanted: dict[str, Any]) -> None:
    kind = THEIR_KINDS.get(got.kind, got.kind) if "channel" in wanted else got.kind  # a channel: WhatsApp's table
    assert (kind, got.starts_turn) == (wanted["kind"], wanted["turn"])
    assert got.sender.user == wanted["user"]
    # An inline button's lane is the person's own chat. WhatsApp's table gives the address, which may change.
    assert (wanted["chat"] or wanted["user"]) in (got.chat, got.address.get("to"), got.address.get("recipient"))
    assert wanted.get("alias", "wa_id ").removeprefix("wa_id ") in ("", *got.sender.aliases)
    assert got.text == (wanted["text"] or "")
    assert wanted["dedupe"] in (got.delivery_id, got.key.partition(":")[2], got.target + "|deleted")
    assert got.sent_at == moment(wanted["ts"])
    assert found(got) >= {(name, value) for name, value in wanted.items() if name in NAMES}
    described = [describe(item).split() for item in got.attachments]
    unsaid = [" ".join(words) for words in described] if kind == "edit" else []  # the table tells an edit's words alone
    theirs = wanted.get("attachments", unsaid)
    theirs = ["contact"] * 3 if theirs == ["3 contacts"] else theirs
    for words, item in zip(described, theirs, strict=True):
        assert set(item.replace("file_id=", "").replace("media id ", "").split()) <= set(words)


# Their name of a field -> where an entry has it.
NAMES = {
    "message_id": lambda entry: entry.platform_id,
    "command": lambda entry: entry.command,
    "args": lambda entry: entry.args,
    "payload": lambda entry: entry.payload,
    "on_message": lambda entry: entry.target,
    "target": lambda entry: entry.target,
    "callback_id": lambda entry: entry.data.get("callback_query_id"),
    "inline_message_id": lambda entry: entry.data.get("inline_message_id"),
    "thread": lambda entry: entry.thread,
    "group": lambda entry: entry.group_id,
    "removed": lambda entry: entry.data.get("removed"),
    "new_chat": lambda entry: entry.new_chat,
    "new": lambda entry: entry.new_chat,
    "channel": lambda entry: entry.channel_ref,
    "unsupported": lambda entry: entry.kind is Kind.UNSUPPORTED,
    "reply_to": lambda entry: entry.target,
    "seq": lambda entry: str(entry.sequence),
}


def found(entry: Entry) -> set[tuple[str, Any]]:
    return {(name, read(entry)) for name, read in NAMES.items()}


def moment(text: str | None) -> dt.datetime | None:
    stamp = re.match(r"[0-9]{4}-[0-9T:.-]+Z", text or "")
    return dt.datetime.fromisoformat(stamp[0]) if stamp else None


def describe(item: Any) -> str:
    """An attachment in the words of the table."""
    if item.kind == "location":
        return f"geo:{item.latitude},{item.longitude} " + (f'"{item.name}" {item.name}' if item.name else "")
    if item.kind == "contact":
        return f"contact {item.name} {item.phone}"
    return f"{item.kind} {item.mime_type} {item.file_id or item.url} {item.name} {item.width}x{item.height}"
