"""The one reader of foreign JSON: strict where two parsers could differ, fast for an ordinary body.

It refuses anything but UTF-8 (a BOM is allowed), NaN and Infinity, a repeated key in one object,
more than 50 levels, more than 10,000 keys or values, and integers of thousands of digits. Integers
stay integers. NUL and lone surrogates in text pass; the core replaces them and sets a flag.

The fast path is msgspec, which takes 5 us for a Telegram update. It does not notice a repeated key,
but then the value that it read has fewer colons than the body. So the colons are counted. Only if
the counts differ, or there are many brackets or commas, does a slower and exact check follow.

Before anything is decoded, its tokens are counted up to the limit: decoded values take fifty times
the memory of their bytes.

Splitting keeps the bytes of each member or item as they came, so that a bad item of a batch is
quarantined byte by byte. Quarantine keeps its own copy, perhaps for longer than the raw body is
kept. A re-encoded copy would lose what was wrong: the repeated key, the digits of a number.
msgspec splits a small object without lone surrogates and NaN. Else the scanner below does: it
decodes no value and stops at the limit.
"""

from __future__ import annotations

import itertools
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
# Most tokens (strings, opening brackets, commas) of a body with so many values: a key and a string,
# a bracket and a comma for each, and the outermost bracket.
MAX_TOKENS = 4 * MAX_VALUES + 1
# Bytes of an object that msgspec splits, at most. It makes all pieces before we can count them.
# Larger: a flood of tiny members takes more memory. Smaller: more bodies take the slower scanner.
FAST_BYTES = 64 * 1024
# Brackets in one member or item, at most; a flat pair costs nothing. Larger: a flood of brackets
# takes more CPU. Smaller: a large and honest batch is quarantined as a whole.
MAX_BRACKETS = 500_000
BOM = b"\xef\xbb\xbf"
ESCAPED_COLON = b"\\u003"  # \u003a in a string is a colon that the raw bytes don't show

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_space = re.compile(rb"[ \t\r\n]*+").match
# All quantifiers are possessive, so that no bytes make a match slow.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'(?:[^"\[\]{}]++|%b)*+' % _STRING
_tokens = re.compile(rb"%b?|[\[{,]" % _STRING, re.DOTALL).finditer  # also a string without its end
_string = re.compile(_STRING, re.DOTALL).match
_value = re.compile(rb'%b|[^\s"\[\]{},:]++|[\[{]' % _STRING, re.DOTALL).match  # or its first bracket
# What is flat up to the next bracket that is not flat, and that bracket.
_to_bracket = re.compile(rb'(?:[^"\[\]{}]++|%b|\{%b\}|\[%b\])*+[\[\]{}]' % (_STRING, _FLAT, _FLAT), re.DOTALL).match


class Unreadable(Exception):
    """Foreign content that cannot be read. The message becomes the reason in quarantine."""


def read_json(raw: bytes) -> Any:
    """Return the value of ``raw``. Raises ``Unreadable``."""
    raw = raw.removeprefix(BOM)
    refuse_floods(raw)
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
    if len(raw) > FAST_BYTES:
        return _unique(_pieces(raw, b"{}", MAX_VALUES))
    try:
        members = {key: bytes(value) for key, value in _split(raw).items()}
    except RecursionError:
        raise Unreadable("JSON is nested too deep") from None
    except (msgspec.MsgspecError, ValueError):
        return _unique(_pieces(raw, b"{}", MAX_VALUES))
    colons = sum(key.count(":") + 1 + value.count(b":") for key, value in members.items())
    if colons < raw.count(b":"):
        raise Unreadable("JSON has a key twice")
    return members


def split_array(raw: bytes, limit: int = MAX_VALUES) -> list[bytes]:
    """Return the items of one array as their own bytes.

    Raises ``Unreadable``, also after ``limit`` items, without a look at the rest.
    """
    return [item for _, item in _pieces(raw, b"[]", limit)]


def _pieces(raw: bytes, brackets: bytes, limit: int) -> list[tuple[str, bytes]]:
    """Return name ('' in an array) and bytes of each value of the object or array in ``raw``.

    Raises ``Unreadable``, also if there are more than ``limit``.
    """
    pieces = list(itertools.islice(_scan(raw, brackets[:1], brackets[1:]), limit + 1))
    if len(pieces) > limit:
        raise Unreadable(f"JSON has more than {limit} items or members")
    return pieces


def _scan(raw: bytes, opening: bytes, closing: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield one piece after the other. Only brackets and strings are looked at."""
    index, name, separator = _expect(raw, 0, opening), "", b","
    if raw.startswith(closing, _skip(raw, index)):
        index, separator = _expect(raw, index, closing), closing
    while separator == b",":
        if opening == b"{":
            name, index = _name(raw, _skip(raw, index))
        start = _skip(raw, index)
        end = _end(raw, start)
        yield name, raw[start:end]
        index = _skip(raw, end) + 1
        separator = raw[index - 1 : index]
        if separator not in (b",", closing):
            raise _bad("a comma is missing", index - 1)
    if _skip(raw, index) < len(raw):
        raise _bad("something follows its end", index)


def _name(raw: bytes, index: int) -> tuple[str, int]:
    """Read a member's name and its colon. Return the name and the index behind the colon."""
    found = _string(raw, index)
    if not found:
        raise _bad("a name is missing", index)
    return read_json(found[0]), _expect(raw, found.end(), b":")


def _end(raw: bytes, index: int) -> int:
    """Return the index behind the value that begins at ``index``."""
    found = _value(raw, index)
    if not found:
        raise _bad("a value is missing", index)
    end, depth = found.end(), int(raw[index] in b"[{")
    for _ in range(MAX_BRACKETS):
        if not depth:
            return end
        found = _to_bracket(raw, end)
        if not found:
            raise _bad("a bracket is not closed", index)
        end = found.end()
        depth += 1 if raw[end - 1] in b"[{" else -1
    raise Unreadable("JSON has too many brackets")


def _expect(raw: bytes, index: int, char: bytes) -> int:
    """Return the index behind ``char``, which must be next after white space."""
    index = _skip(raw, index)
    if not raw.startswith(char, index):
        raise _bad(f"'{char.decode()}' is missing", index)
    return index + 1


def _skip(raw: bytes, index: int) -> int:
    """Return the index behind white space."""
    return _space(raw, index).end()  # type: ignore[union-attr]


def _bad(why: str, index: int) -> Unreadable:
    return Unreadable(f"JSON cannot be read: {why} at {index}")


def refuse_floods(raw: bytes, limit: int = MAX_TOKENS) -> None:
    """Raise ``Unreadable`` if there are more than ``limit`` tokens, before they become values."""
    if len(raw) > limit and next(itertools.islice(_tokens(raw), limit, None), None):
        raise Unreadable("JSON has too many keys or values")


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
