"""Splits Markdown into parts that fit once they are rendered. Pure.

A part is Markdown by itself: a mark or a block of code that goes on in the next part is closed and
opened again. No link, code or grapheme is cut, unless it is larger than a part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import NamedTuple

from regex import Pattern

from channels_ingest.formats.markdown.reading import read
from channels_ingest.formats.markdown.runs import Kind, Run, Runs, cut, plain, spelled, tidy, words
from channels_ingest.formats.markdown.writing import write
from channels_ingest.formats.text import BORDERS, FILLED, GRAPHEME, Unit, fits, size


class Part(NamedTuple):
    """A part. ``text`` is the same as plain text. ``markdown`` is empty where Markdown cannot say the part."""

    markdown: str
    text: str


class Room(NamedTuple):
    """The room of a part: ``limit`` (0: no limit) in ``unit``, of what ``render`` returns."""

    limit: int
    unit: Unit
    render: Callable[[Runs], str]

    def holds(self, runs: Runs) -> bool:
        """Return True if the runs fit. No dialect makes a text shorter."""
        return not self.limit or (len(words(runs)) <= self.limit and fits(self.render(runs), self.limit, self.unit))

    def plain(self, runs: Runs) -> str:
        """Return plain text; without the URLs of links, where these make it too long."""
        text = plain(runs)
        return text if not self.limit or fits(text, self.limit, self.unit) else words(runs)

    def holds_url(self, url: str) -> bool:
        """Return True if a URL leaves room for its words."""
        return size(url, self.unit) * 2 < self.limit


def split(source: str, room: Room) -> list[Part]:
    """Return a Markdown text in parts that fit. One that fits is kept as it was written."""
    runs = read(source)
    if room.holds(runs):
        return [Part(source, room.plain(runs))]
    return [Part(_markdown(piece), room.plain(piece)) for piece in _pieces(runs, room)]


def _markdown(runs: Runs) -> str:
    """Return Markdown that reads as these runs; '' if there is none, as for some marks within words."""
    return next((source for source in (write(runs), write(runs, italic="*")) if read(source) == runs), "")


def _pieces(runs: Runs, room: Room) -> Iterator[Runs]:
    """Yield the parts as runs. A URL that is too long for a part becomes text, which can be cut."""
    rest = tidy(list(_shorter_links(runs, room)))
    while not room.holds(rest):
        end = _end(rest, room)
        if piece := tidy(cut(rest, 0, end)):
            yield piece
        rest = tidy(cut(rest, end, len(words(rest))))
    if rest:
        yield rest


def _shorter_links(runs: Runs, room: Room) -> Iterator[Run]:
    for run in spelled(runs, room.holds_url):
        link = run.mark(Kind.LINK)
        yield run if link is None or room.holds_url(link.value) else run.without(Kind.LINK)


def _end(runs: Runs, room: Room) -> int:
    """Return where the first part ends: at the best kind of border that fills it enough."""

    def holds(end: int) -> bool:
        return room.holds(tidy(cut(runs, 0, end)))

    text = words(runs)[: room.limit + 64]  # 64: a grapheme at the border is seen whole
    longest = max(bisect_left(range(1, room.limit + 1), True, key=lambda end: not holds(end)), 1)
    allowed = _allowed(runs, text, longest)
    best = (_last(border, text[:longest], allowed) for border in BORDERS)
    ends = [*(end for end in best if end >= longest * FILLED), *sorted(allowed, reverse=True)]
    return next(filter(holds, ends), ends[-1])


def _last(border: Pattern[str], text: str, allowed: Collection[int]) -> int:
    return max((found.end() for found in border.finditer(text) if found.end() in allowed), default=0)


def _allowed(runs: Runs, text: str, longest: int) -> set[int]:
    """Return the ends of graphemes up to ``longest`` that cut no link and no code, as far as there are any."""
    ends = {found.end() for found in GRAPHEME.finditer(text) if found.end() <= longest} or {longest}
    inside, place = set(), 0
    for whole, group in groupby(runs, key=lambda run: run.mark(Kind.LINK) or run.mark(Kind.CODE)):
        start, place = place, place + len(words(group))
        if whole:
            inside |= set(range(start + 1, min(place, longest + 1)))
        if place > longest:
            break
    return ends - inside or ends
