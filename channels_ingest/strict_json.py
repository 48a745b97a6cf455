"""The one reader of foreign JSON: strict where two parsers could differ, cheap for an ordinary body.

Refused: anything but UTF-8 (a BOM is fine), NaN and Infinity, a key twice in one object, more than
50 levels, more than 10,000 keys or values, integers of thousands of digits. Ints stay ints. NUL and
lone surrogates in text pass: the core replaces and flags them.

The fast path (msgspec, 5 us for a Telegram update) can't see a repeated key, but a repeated key
loses a colon: the body's colons must be those of what was read. Only where that comparison, or the
number of brackets and commas, asks for it does a slower, exact look follow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_DEPTH = 50
MAX_VALUES = 10_000
BOM = b"\xef\xbb\xbf"
ESCAPED_COLON = b"\\u003"  # \u003a in a string is a colon that the raw bytes don't show

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Unreadable(Exception):
    """Foreign content that can't be read; its words become the reason in quarantine."""


def read_json(raw: bytes) -> Any:
    """The value of ``raw``, or ``Unreadable`` with the reason."""
    raw = raw.removeprefix(BOM)
    _refuse_floods(raw)
    try:
        value = _decode(raw)
        exact = _shows_every_key(raw, value)
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except (msgspec.MsgspecError, ValueError):
        exact = False
    if not exact:
        value = _read_slowly(raw)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH or raw.count(b",") >= MAX_VALUES:
        _measure(value)
    return value


def read_object(raw: bytes) -> dict[str, Any]:
    value = read_json(raw)
    if not isinstance(value, dict):
        raise Unreadable("JSON is not an object")
    return value


def split_object(raw: bytes) -> Mapping[str, bytes]:
    """The members of one object, each as its own bytes, unread. A key may not come twice."""
    raw = raw.removeprefix(BOM)
    try:
        members = {key: bytes(value) for key, value in _split(raw).items()}
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except (msgspec.MsgspecError, ValueError):
        raise Unreadable("JSON cannot be read") from None
    colons = sum(key.count(":") + 1 + value.count(b":") for key, value in members.items())
    if colons < raw.count(b":"):
        raise Unreadable("JSON has a key twice")
    return members


def split_array(raw: bytes) -> list[bytes]:
    """The items of one array, each as its own bytes, unread."""
    try:
        return [bytes(item) for item in _items(raw)]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Unreadable("JSON is not an array") from None


def _refuse_floods(raw: bytes) -> None:
    """Before decoding: more quotes followed by a colon than allowed values could bring about."""
    if len(raw) > MAX_VALUES and raw.count(b'":') - raw.count(b'\\":') > 3 * MAX_VALUES:
        raise Unreadable("JSON has too many keys")


def _shows_every_key(raw: bytes, value: Any) -> bool:
    return ESCAPED_COLON not in raw and raw.count(b":") == _encode(value).count(b":")


def _read_slowly(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except UnicodeDecodeError:
        raise Unreadable("body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"JSON cannot be read: {error.msg} at {error.pos}") from None
    except ValueError:
        raise Unreadable("JSON has a number that is too long") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("JSON has a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise Unreadable(f"JSON has {name}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Unreadable("JSON has a number that is too large")
    return number


def _measure(value: Any) -> None:
    """Level by level, so that depth costs no stack."""
    level, depth, seen = [value], 0, 0
    while level:
        containers = [item for item in level if isinstance(item, dict | list)]
        depth += bool(containers)
        seen += sum(map(len, containers))
        if depth > MAX_DEPTH:
            raise Unreadable("JSON is nested too deep")
        if seen > MAX_VALUES:
            raise Unreadable("JSON has too many keys or values")
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
