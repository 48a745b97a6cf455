"""Splits long text by the platform's own unit, never inside a grapheme. Pure.

The white space at a border stays with the part before it. Parts of white space alone are dropped,
because platforms refuse them as empty; nothing else is lost.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import regex

GRAPHEME = regex.compile(r"\X")
# The end of a sentence. A run of dots is tried at its first only, else the time for it is quadratic.
SENTENCE = r"(?<![.!?…。！？])[.!?…。！？]++[\"')\]»”]*+\s+"
# Where a part may end, best first: behind a paragraph, a line, a sentence, a space.
BORDERS = tuple(map(regex.compile, (r"\n[ \t]*\n\s*", r"\r?\n", SENTENCE, r"\s+")))
# Share of the limit that a part must fill, else the next kind of border is tried. Larger: fewer
# parts with worse borders. Smaller: more, shorter parts with better borders.
FILLED = 0.5


class Unit(enum.StrEnum):
    """What a platform counts."""

    UTF16 = "utf-16 units"
    CODE_POINTS = "code points"
    BYTES = "utf-8 bytes"


def size(text: str, unit: Unit) -> int:
    """Return the length of ``text`` in ``unit``."""
    if unit is Unit.CODE_POINTS or text.isascii():
        return len(text)
    if unit is Unit.UTF16:
        return len(text) + sum(char > "\uffff" for char in text)
    return len(text.encode("utf-8", "surrogatepass"))


def split(text: str, limit: int, unit: Unit = Unit.UTF16) -> list[str]:
    """Return ``text`` in parts of at most ``limit`` units.

    Empty text gives one empty part; white space alone gives one part of white space.
    """
    if fits(text, limit, unit):
        return [text]
    return [part for part in _parts(text, limit, unit) if part.strip()] or [text[: _end(text, limit, unit)]]


def fits(text: str, limit: int, unit: Unit = Unit.UTF16) -> bool:
    """Return True if ``text`` has at most ``limit`` units. No character is less than a unit."""
    return len(text) <= limit and size(text, unit) <= limit


def _parts(text: str, limit: int, unit: Unit) -> Iterator[str]:
    """Yield the parts of ``text``, also those of white space alone.

    Each is found in a piece of ``text`` that is larger than a part, so that no rest is copied.
    """
    start = 0
    while not fits(piece := text[start : start + 2 * limit + 64], limit, unit):
        end = _end(piece, limit, unit)
        yield piece[:end]
        start += end
    yield piece


def _end(text: str, limit: int, unit: Unit) -> int:
    """Return where the first part ends: at the best kind of border that fills it enough."""
    longest = _longest(text, limit, unit)
    window = text[:longest]
    for border in BORDERS:
        end = max((match.end() for match in border.finditer(window)), default=0)
        if end >= longest * FILLED:
            return end
    return longest


def _longest(text: str, limit: int, unit: Unit) -> int:
    """Return the end of the last whole grapheme within ``limit``.

    A grapheme that is larger by itself is cut between characters.
    """
    end = used = 0
    for start, stop in _graphemes(text, limit):
        used += size(text[start:stop], unit)
        if used > limit:
            break
        end = stop
    return end or _by_character(text, limit, unit)


def _graphemes(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of graphemes, of at most twice ``limit`` + 64 characters.

    The bound limits the work for a grapheme with thousands of combining marks. The 64 let a small
    limit still see whole graphemes.
    """
    for match in GRAPHEME.finditer(text, 0, min(len(text), 2 * limit + 64)):
        yield match.span()


def _by_character(text: str, limit: int, unit: Unit) -> int:
    """Return how many characters fit, at least one, so that splitting always ends."""
    end = used = 0
    for end, char in enumerate(text):  # noqa: B007
        used += size(char, unit)
        if used > limit:
            break
    return max(end, 1)
