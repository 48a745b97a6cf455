"""Webhooks of Meta's platforms: who may post them, large batches, and bodies that are broken anywhere."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.adapters.meta import WhatsApp
from channels_ingest.adapters.meta.envelope import MAX_ITEMS
from conversations.contracts import Answer, ChannelConfig, Entry, Note, StatusUpdate, Unusable, WebhookRequest
from tests.adapters.test_fixtures import read, wanted
from tests.adapters.test_whatsapp import entries, parse_body
from tests.kit.fixtures import CREDENTIALS, channel, incoming, names, request

# ---------------------------------------------------------------- signatures and the handshake

BODY = b'{"object":"whatsapp_business_account","entry":[],"x":"\\u05e9 \\/"}'
# printf '%s' "$BODY" | openssl dgst -sha256 -hmac fixture0app0secret0of0320letters
GOOD = "sha256=b2548a3584b241c1df7cd6f1b73f488db344a792101b0a15a5a8f8b79627b9a8"


def signed(body: bytes, secret: str = CREDENTIALS["app_secret"]) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


HEADERS = [
    (GOOD, True, True),
    (GOOD.upper().replace("SHA256", "sha256"), False, False),
    (GOOD.removeprefix("sha256="), False, False),
    (GOOD + " ", False, False),
    (GOOD[:-1], False, False),
    ("sha1=" + "0" * 40, False, False),
    ("sha256=" + "0" * 64, True, False),
    ("sha256=" + "é" * 64, False, False),
    ("", False, False),
    (signed(BODY, "another secret")["x-hub-signature-256"], True, False),
    (signed(BODY, "")["x-hub-signature-256"], True, False),
]


@pytest.mark.parametrize(("header", "may_be", "is_right"), HEADERS)
def test_a_signature_counts_over_the_bytes_as_they_came(header: str, may_be: bool, is_right: bool) -> None:
    given = {"x-hub-signature-256": header}
    assert WhatsApp().precheck(channel("whatsapp"), given) is may_be
    assert WhatsApp().verify(channel("whatsapp"), incoming(BODY, **given)) is is_right
    assert not WhatsApp().verify(channel("whatsapp"), incoming(BODY.replace(b"\\/", b"/"), **given))


CHALLENGES = [
    ({"hub.verify_token": "fixture words", "hub.challenge": "1158201444"}, Answer(body=b"1158201444")),
    ({"hub.verify_token": "wrong", "hub.challenge": "1158201444"}, Answer(status=403, body=b"forbidden\n")),
    ({"hub.challenge": "1158201444"}, Answer(status=403, body=b"forbidden\n")),
    ({"hub.verify_token": "fixture words", "hub.challenge": "<script>"}, Answer(status=400)),
    ({"hub.verify_token": "fixture words", "hub.challenge": "7" * 1_000_000}, Answer(status=400)),
    ({"hub.verify_token": "fixture words"}, Answer(status=400)),
    ({"hub.mode": "unsubscribe", "hub.verify_token": "fixture words", "hub.challenge": "1"}, None),
]


@pytest.mark.parametrize(("query", "wanted"), CHALLENGES, ids=lambda value: str(value)[:40])
def test_the_challenge_is_repeated_to_whoever_knows_our_words(query: dict[str, str], wanted: Answer | None) -> None:
    asked = WebhookRequest(method="GET", url="", headers={}, query={"hub.mode": "subscribe", **query}, body=b"")
    assert WhatsApp().handshake(channel("whatsapp"), asked) == wanted
    bare = ChannelConfig(id=1, public_id="p", platform="whatsapp", tenant_id=1)
    assert wanted is None or WhatsApp().handshake(bare, asked).status == 403  # type: ignore[union-attr]


# ---------------------------------------------------------------- batches


def batch(count: int) -> dict[str, Any]:
    """One value of ``count`` texts."""
    body: dict[str, Any] = json.loads(request("whatsapp", "text").body)
    messages = body["entry"][0]["changes"][0]["value"]["messages"]
    messages += [{**messages[0], "id": f"wamid.{number}", "text": {"body": str(number)}} for number in range(1, count)]
    return body


def test_a_thousand_messages_are_read_in_order_and_a_bad_one_keeps_its_own_bytes() -> None:
    body = batch(1000)
    body["entry"][0]["changes"][0]["value"]["messages"][500] = {"id": "wamid.500", "type": ["?"]}
    parsed = parse_body(body)
    assert [each.text for each in entries(parsed)[1:]] == [str(number) for number in range(1, 1000) if number != 500]
    assert parsed[500] == Unusable(reason="from is empty", raw=b'{"id": "wamid.500", "type": ["?"]}')
    assert all(json.loads(each.raw)["id"] == each.platform_id for each in entries(parsed))


def test_a_message_that_comes_twice_in_one_request_has_one_key() -> None:
    body = batch(2)
    messages = body["entry"][0]["changes"][0]["value"]["messages"]
    messages[1] = copy.deepcopy(messages[0])
    first, second = entries(parse_body(body))
    assert (first.chat, first.kind, first.key) == (second.chat, second.kind, second.key)


def test_more_items_than_meta_sends_are_set_aside_with_their_bytes() -> None:
    (unusable,) = parse_body(batch(MAX_ITEMS + 1))
    assert isinstance(unusable, Unusable)
    assert (unusable.reason, len(unusable.raw) > 1000) == (f"JSON has more than {MAX_ITEMS} items or members", True)


# ---------------------------------------------------------------- whatever is broken

ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=5,
)


# Fixtures that are JSON, and hold something.
WHOLE = [name for name in names("whatsapp") if name not in ("truncated", "no_entry", "batch_with_a_repeated_key")]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every member and item."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for name, item in below for each in ((*path, name), *places(item, (*path, name)))]


def put(body: Any, path: tuple[Any, ...], value: Any, gone: bool) -> None:
    for name in path[:-1]:
        body = body[name]
    if gone:
        del body[path[-1]]
    else:
        body[path[-1]] = value


@given(data=st.data())
def test_whatever_is_changed_a_body_is_stored_noted_or_set_aside_and_its_neighbours_are_stored(data: Any) -> None:
    changed = json.loads(request("whatsapp", data.draw(st.sampled_from(WHOLE))).body)
    body = json.loads(request("whatsapp", "batch").body)
    before, after = copy.deepcopy(body["entry"][0]), copy.deepcopy(body["entry"][1])
    path = data.draw(st.sampled_from(places(changed["entry"][0])))
    put(changed["entry"][0], path, data.draw(ANYTHING), data.draw(st.booleans()))
    body["entry"] = [before, changed["entry"][0], after]
    parsed = parse_body(body)
    alone = parse_body({**body, "entry": [before]})
    assert parsed[:3] == alone
    assert [read(each) for each in parsed[-2:]] == wanted("whatsapp", "batch")[3:]
    assert len(parsed) > 5
    assert all(isinstance(each, Entry | StatusUpdate | Note) or each.raw for each in parsed)
