"""What the one reader of foreign JSON takes and refuses."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.adapters import generic
from channels_ingest.adapters.generic import MAX_ITEMS, Generic
from channels_ingest.formats import strict_json
from channels_ingest.formats.strict_json import Unreadable, read_json, split_array, split_object
from conversations.contracts import ChannelConfig, Entry, Unusable, WebhookRequest

REFUSED = {
    "empty": b"",
    "truncated": b'{"a":1',
    "trailing comma": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "two values": b"{}{}",
    "comment": b'{"a":1} // x',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "1e999": b'{"a":1e999}',
    "4301 digits": b'{"a":' + b"1" * 4301 + b"}",
    "key twice": b'{"id":1,"id":2}',
    "key twice, spaced": b'{"id" : 1,"id" :2}',
    "key twice, escaped": b'{"\\u0069d":1,"id":2}',
    "key twice, hidden by a colon in text": b'{"id":1,"id":2,"t":"\\u003a"}',
    "key twice, deep": b'{"a":[{"b":{"c":1,"c":2}}]}',
    "51 levels": b"[" * 51 + b"]" * 51,
    "1100 levels": b'{"a":' * 1100,
    "100,000 levels closed": b"[" * 100_000 + b"]" * 100_000,
    "10,001 keys": b"{" + b",".join(b'"k%d":1' % n for n in range(10_001)) + b"}",
    "1,000,000 keys": b"{" + b",".join(b'"%d":1' % n for n in range(900_000)) + b"}",
    "100,000 elements": b'{"a":[' + b",".join([b"0"] * 100_000) + b"]}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-32": '{"a":1}'.encode("utf-32-le"),
    "bad byte": b'{"a":"\xff"}',
    "overlong": b'{"a":"\xc0\x80"}',
    "CESU surrogates": b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}',
    "raw newline in text": b'{"a":"x\ny"}',
}
TAKEN: dict[str, tuple[bytes, Any]] = {
    "BOM": (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    "NUL in text": (b'{"a":"x\\u0000y"}', {"a": "x\0y"}),
    "lone surrogate": (b'{"a":"\\ud800"}', {"a": "\ud800"}),
    "reversed pair": (b'{"a":"\\udc00\\ud800"}', {"a": "\udc00\ud800"}),
    "escaped emoji": (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
    "big integers": (b'{"a":9007199254740993,"b":18446744073709551616}', {"a": 9007199254740993, "b": 2**64}),
    "50 levels": (b"[" * 50 + b"]" * 50, json.loads("[" * 50 + "]" * 50)),
    "same key in two objects": (b'{"a":{"id":1},"b":{"id":2}}', {"a": {"id": 1}, "b": {"id": 2}}),
    "colons and brackets in text": (b'{"a":"\\":{{[[:,,"}', {"a": '":{{[[:,,'}),
    "escaped colon": (b'{"a":"\\u003a"}', {"a": ":"}),
    "keys that are data": (b'{"__proto__":1,"__class__":2}', {"__proto__": 1, "__class__": 2}),
    "text full of commas": (json.dumps({"a": ",[{" * 20_000}).encode(), {"a": ",[{" * 20_000}),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_refused_quickly_and_with_a_reason(raw: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(Unreadable, match=r"JSON|UTF-8"):
        read_json(raw)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(("raw", "value"), TAKEN.values(), ids=TAKEN.keys())
def test_taken_as_it_is(raw: bytes, value: Any) -> None:
    assert read_json(raw) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON, ascii_only=st.booleans())
def test_reads_what_the_standard_library_writes(value: Any, ascii_only: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(pairs=st.lists(st.tuples(st.text(max_size=3), JSON), max_size=6))
def test_a_duplicate_key_is_never_accepted(pairs: list[tuple[str, Any]]) -> None:
    raw = ("{" + ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}").encode()
    if len({key for key, _ in pairs}) == len(pairs):
        assert read_json(raw) == dict(pairs)
    else:
        with pytest.raises(Unreadable):
            read_json(raw)


@given(value=st.dictionaries(st.text(max_size=4), JSON, max_size=5), fast_bytes=st.sampled_from([0, 64 * 1024]))
def test_members_and_items_are_split_without_being_read(value: dict[str, Any], fast_bytes: int) -> None:
    with mock.patch.object(strict_json, "FAST_BYTES", fast_bytes):
        members = split_object(json.dumps(value).encode())
        items = split_array(json.dumps([*value.values()], indent=1).encode())
    assert {name: read_json(raw) for name, raw in members.items()} == value
    assert [read_json(raw) for raw in items] == [*value.values()]


def test_a_bad_item_is_split_off_with_its_own_bytes() -> None:
    assert split_array(b'[{"a":1} , {"a":1,"a":2},"\\ud800"]') == [b'{"a":1}', b'{"a":1,"a":2}', b'"\\ud800"']


@given(value=st.lists(JSON, max_size=4), spoiler=st.sampled_from(['"\\ud800"', "NaN", '{"a":"\\udc00"}']))
def test_splitting_works_the_same_where_the_fast_way_cannot(value: list[Any], spoiler: str) -> None:
    raw = ("[" + " , ".join([*(json.dumps(item) for item in value), spoiler]) + " ]").encode()
    *items, last = split_array(raw)
    assert [read_json(item) for item in items] == value
    assert last == spoiler.encode()
    assert split_object(b'{"k": ' + raw + b', "l":[]} ') == {"k": raw, "l": b"[]"}


@pytest.mark.parametrize("raw", [
    b"", b"{", b"[", b"[1", b"[1 2]", b"[NaN", b"[NaN]x", b"[NaN,]", b'{"a":NaN', b'{"a" NaN}', b"{1:NaN}",
    b'{"a":NaN,"a":1}', b"5", b"\xff",
])  # fmt: skip
def test_what_is_no_whole_object_or_array_is_not_split(raw: bytes) -> None:
    for split in (split_object, split_array):
        with pytest.raises(Unreadable):
            split(raw)


def filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + unit * ((1_000_000 - len(head) - len(tail)) // len(unit)) + tail


BATCH = b'{"type":"messages.batch","data":{"messages":['
MEMBERS = b",".join(b'"%d":0' % n for n in range(100_000))
FLOODS = {
    "numbers": filled(BATCH, b"0,", b"0]}}"),
    "NaN": filled(BATCH, b"NaN,", b"NaN]}}"),
    "texts": filled(BATCH, b'"",', b'""]}}'),
    "objects": filled(BATCH, b"{},", b"{}]}}"),
    "lists in an item": filled(BATCH + b"[", b"[],", b"[]]]}}"),
    "members": b'{"type":"messages.batch",' + MEMBERS + b"}",
    "members of the data": b'{"type":"messages.batch","data":{' + MEMBERS + b"}}",
    "a list that is no batch": filled(b'{"type":"message.created","data":[', b"[],", b"[]]}"),
    "colons": filled(b'{"type":"message.created","data":{', b'"a":{},', b'"a":{}}}'),
    "a text without its end": filled(b'{"type":"messages.batch","data":"', b'\\"', b""),
}  # fmt: skip


def parse(body: bytes) -> list[Any]:
    channel = ChannelConfig(id=1, public_id="p", platform="generic", tenant_id=1, credentials={})
    return list(Generic().parse(channel, WebhookRequest(method="POST", url="", headers={}, query={}, body=body)))


@pytest.mark.parametrize("body", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_values_is_set_aside_before_it_takes_memory(body: bytes) -> None:
    """Made first and counted afterwards, 8 MB of zeros took 530 MB."""
    tracemalloc.start()
    try:
        things = parse(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(things) == 1
    assert isinstance(things[0], Unusable)
    assert peak < 8 * len(body)


def test_items_that_are_each_allowed_are_set_aside_if_they_hold_too_much_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """8 MB of them took 355 MB."""
    item = b'{"message_id":"1","user":{"id":"u"},"chat":{"id":"u"},"text":"x","extra":{"a":[{},{},{}]}}'
    body = BATCH + b",".join([item] * 10) + b"]}}"
    tokens = 1 + 10 * (item.count(b'"') // 2 + sum(item.count(mark) for mark in (b"{", b"[", b","))) + 9
    monkeypatch.setattr(generic, "MAX_BATCH_TOKENS", tokens)
    assert all(isinstance(thing, Entry) for thing in parse(body))
    monkeypatch.setattr(generic, "MAX_BATCH_TOKENS", tokens - 1)
    assert [type(thing) for thing in parse(body)] == [Unusable]


def test_too_many_brackets_in_one_item_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a step of ours, so 8 MB of them would take seconds."""
    monkeypatch.setattr(strict_json, "MAX_BRACKETS", 10)
    assert split_array(b"[[[[[1]]]],[[],[]]]") == [b"[[[[1]]]]", b"[[],[]]"]
    with pytest.raises(Unreadable, match="brackets"):
        split_array(b"[" * 9 + b"]" * 9)


def test_a_batch_of_the_documented_size_is_read_with_a_bad_item_apart() -> None:
    item = b'{"message_id":"%d","user":{"id":"u"},"chat":{"id":"u"},"text":"a \\"word\\""}'
    items = [item % n for n in range(MAX_ITEMS)]
    items[5000] = b'{"a" 1, "b":[1 2]}'
    things = parse(BATCH + b",".join(items) + b"]}}")
    assert [n for n, thing in enumerate(things) if not isinstance(thing, Entry)] == [5000]
    assert [thing.raw for thing in things] == items
    (whole,) = parse(BATCH + b",".join([*items, b"0"]) + b"]}}")
    assert isinstance(whole, Unusable)
