"""The one reader of foreign JSON: strict where two parsers could differ, fast for an ordinary body.

It refuses anything but UTF-8 (a BOM is allowed), NaN and Infinity, a repeated key in one object,
more than 50 levels, more than 10,000 keys or values, and integers of thousands of digits. Integers
stay integers. NUL and lone surrogates in text pass; the core replaces them and sets a flag.

The fast path is msgspec, which takes 5 us for a Telegram update. It does not notice a repeated key,
but then the value that it read has fewer colons than the body. So the colons are counted. Only if
the counts differ, or there are many brackets or commas, does a slower and exact check follow.

Splitting keeps the bytes of each member or item as they came, so that a bad item of a batch is
quarantined byte by byte. Quarantine keeps its own copy, perhaps for longer than the raw body is
kept. A re-encoded copy would lose what was wrong: the repeated key, the digits of a number.
msgspec splits, except when an item holds a lone surrogate or NaN. Then the scanner below does, with
the standard library's decoder for each value, so that one such item does not spoil its batch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

# Most levels of objects and arrays. Larger: readers that descend come closer to the limit of the
# stack. Smaller: deep but honest content goes to quarantine.
MAX_DEPTH = 50
# Most members and items in all. Larger: a request takes more memory and CPU. Smaller: large but
# honest content goes to quarantine.
MAX_VALUES = 10_000
BOM = b"\xef\xbb\xbf"
ESCAPED_COLON = b"\\u003"  # \u003a in a string is a colon that the raw bytes don't show

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_scan = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\r\n]*").match
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Unreadable(Exception):
    """Foreign content that cannot be read. The message becomes the reason in quarantine."""


def read_json(raw: bytes) -> Any:
    """Return the value of ``raw``. Raises ``Unreadable``."""
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
    """Return the value of ``raw``, which must be an object. Raises ``Unreadable``."""
    value = read_json(raw)
    if not isinstance(value, dict):
        raise Unreadable("JSON is not an object")
    return value


def split_object(raw: bytes) -> Mapping[str, bytes]:
    """Return the members of one object as their own bytes. Raises ``Unreadable``."""
    raw = raw.removeprefix(BOM)
    try:
        members = {key: bytes(value) for key, value in _split(raw).items()}
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except (msgspec.MsgspecError, ValueError):
        return _unique(_pieces(raw, "{}"))
    colons = sum(key.count(":") + 1 + value.count(b":") for key, value in members.items())
    if colons < raw.count(b":"):
        raise Unreadable("JSON has a key twice")
    return members


def split_array(raw: bytes) -> list[bytes]:
    """Return the items of one array as their own bytes. Raises ``Unreadable``."""
    try:
        return [bytes(item) for item in _items(raw)]
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except (msgspec.MsgspecError, ValueError):
        return [item for _, item in _pieces(raw, "[]")]


def _pieces(raw: bytes, brackets: str) -> list[tuple[str, bytes]]:
    """Return the pieces that ``_scan_pieces`` finds. Raises ``Unreadable``."""
    try:
        return list(_scan_pieces(raw.decode("utf-8", "surrogateescape"), *brackets))
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except ValueError as error:
        words = (
            f"{error.msg} at {error.pos}" if isinstance(error, json.JSONDecodeError) else "a number that is too long"
        )
        raise Unreadable(f"JSON cannot be read: {words}") from None


def _scan_pieces(text: str, opening: str, closing: str) -> Iterator[tuple[str, bytes]]:
    """Yield name ('' in an array) and bytes of each value of the object or array in ``text``."""
    index, name = _expect(text, 0, opening), ""
    if text[_skip(text, index) :][:1] == closing:
        index, separator = _expect(text, index, closing), closing
    else:
        separator = ","
    while separator == ",":
        if opening == "{":
            name, index = _name(text, _skip(text, index))
        start = _skip(text, index)
        _, end = _scan(text, start)
        yield name, text[start:end].encode("utf-8", "surrogateescape")
        index = _skip(text, end) + 1
        separator = text[index - 1 : index]
        if separator not in (",", closing):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, index - 1)
    if text[index:].strip(" \t\r\n"):
        raise json.JSONDecodeError("Extra data", text, index)


def _name(text: str, index: int) -> tuple[str, int]:
    """Read a member's name and its colon. Return the name and the index behind the colon."""
    name, end = _scan(text, index)
    if not isinstance(name, str):
        raise json.JSONDecodeError("Expecting property name", text, index)
    return name, _expect(text, end, ":")


def _expect(text: str, index: int, char: str) -> int:
    """Return the index behind ``char``, which must be next after white space."""
    index = _skip(text, index)
    if text[index : index + 1] != char:
        raise json.JSONDecodeError(f"Expecting '{char}'", text, index)
    return index + 1


def _skip(text: str, index: int) -> int:
    """Return the index behind white space."""
    return _space(text, index).end()  # type: ignore[union-attr]


def _refuse_floods(raw: bytes) -> None:
    """Raise ``Unreadable`` if there are many more keys than allowed.

    This is a cheap guess before decoding, which would take the memory for them all.
    """
    if len(raw) > MAX_VALUES and raw.count(b'":') - raw.count(b'\\":') > 3 * MAX_VALUES:
        raise Unreadable("JSON has too many keys")


def _shows_every_key(raw: bytes, value: Any) -> bool:
    """Return True if no repeated key was dropped: body and value have as many colons.

    An escaped colon counts only in the value and could make up for a dropped key: such a body goes
    to the slow check.
    """
    return ESCAPED_COLON not in raw and raw.count(b":") == _encode(value).count(b":")


def _read_slowly(raw: bytes) -> Any:
    """Read with the standard library, which shows repeated keys and says what is wrong."""
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
    """Return pairs as a dict. Raises ``Unreadable`` if a key comes twice: which one counts?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("JSON has a key twice")
    return found


def _no_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which are not JSON."""
    raise Unreadable(f"JSON has {name}")


def _finite(text: str) -> float:
    """Read a float. Raises ``Unreadable`` for one so large that it would become infinity."""
    number = float(text)
    if not math.isfinite(number):
        raise Unreadable("JSON has a number that is too large")
    return number


def _measure(value: Any) -> None:
    """Raise ``Unreadable`` over a limit. It goes level by level, so that depth takes no stack."""
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
