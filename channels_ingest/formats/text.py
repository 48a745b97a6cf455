"""Cut long text by the platform's own unit, never inside a grapheme. Pure.

A border stays with the part before it; nothing is lost but parts that would be only white space,
which platforms refuse as empty.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import regex

GRAPHEME = regex.compile(r"\X")
# Preferred borders, best first: paragraph, line, sentence, space. A part ends behind one.
BORDERS = tuple(map(regex.compile, (r"\n[ \t]*\n\s*", r"\r?\n", r"[.!?…。！？]+[\"')\]»”]*\s+", r"\s+")))
FILLED = 0.5  # a border before half of the part is worse than the next kind of border


class Unit(enum.StrEnum):
    """What a platform counts."""

    UTF16 = "utf-16 units"
    CODE_POINTS = "code points"
    BYTES = "utf-8 bytes"


def size(text: str, unit: Unit) -> int:
    if unit is Unit.CODE_POINTS or text.isascii():
        return len(text)
    if unit is Unit.UTF16:
        return len(text) + sum(char > "\uffff" for char in text)
    return len(text.encode("utf-8", "surrogatepass"))


def split(text: str, limit: int, unit: Unit = Unit.UTF16) -> list[str]:
    """``text`` in parts of at most ``limit``; one empty part for empty text."""
    if fits(text, limit, unit):
        return [text]
    return [part for part in _parts(text, limit, unit) if part.strip()] or [text[: _end(text, limit, unit)]]


def fits(text: str, limit: int, unit: Unit = Unit.UTF16) -> bool:
    return len(text) <= limit and size(text, unit) <= limit


def _parts(text: str, limit: int, unit: Unit) -> Iterator[str]:
    while not fits(text, limit, unit):
        end = _end(text, limit, unit)
        yield text[:end]
        text = text[end:]
    yield text


def _end(text: str, limit: int, unit: Unit) -> int:
    """Where the first part ends."""
    longest = _longest(text, limit, unit)
    window = text[:longest]
    for border in BORDERS:
        end = max((match.end() for match in border.finditer(window)), default=0)
        if end >= longest * FILLED:
            return end
    return longest


def _longest(text: str, limit: int, unit: Unit) -> int:
    """The end of the last whole grapheme within ``limit``; a grapheme larger than that is cut by character."""
    end = used = 0
    for start, stop in _graphemes(text, limit):
        used += size(text[start:stop], unit)
        if used > limit:
            break
        end = stop
    return end or _by_character(text, limit, unit)


def _graphemes(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """Bounds of the graphemes that begin within ``limit`` characters; a flood of marks is looked at no further."""
    for match in GRAPHEME.finditer(text, 0, min(len(text), 2 * limit + 64)):
        yield match.span()


def _by_character(text: str, limit: int, unit: Unit) -> int:
    end = used = 0
    for end, char in enumerate(text):  # noqa: B007
        used += size(char, unit)
        if used > limit:
            break
    return max(end, 1)
