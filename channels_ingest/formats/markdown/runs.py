"""Text with its marks, as runs, and what all dialects do with them. Pure.

Blocks are text already: a list's items begin with bullets or numbers, headings are bold, blocks
are separated by newlines. No mark within a line (LINK to CODE) has a newline, or white space at its
border.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple
from urllib.parse import unquote


class Kind(enum.IntEnum):
    """What a mark does, outermost first: all marks are nested in this order."""

    QUOTE = 1
    PRE = 2  # a block of code; the mark's value is its language, or empty
    LINK = 3  # the mark's value is the URL
    STRIKE = 4
    BOLD = 5
    ITALIC = 6
    CODE = 7


class Mark(NamedTuple):
    kind: Kind
    value: str = ""


class Run(NamedTuple):
    """A piece of text under one set of marks, each kind at most once, sorted."""

    text: str
    marks: tuple[Mark, ...] = ()

    def has(self, *kinds: Kind) -> bool:
        return any(mark.kind in kinds for mark in self.marks)

    def mark(self, kind: Kind) -> Mark | None:
        return next((mark for mark in self.marks if mark.kind is kind), None)

    def without(self, kind: Kind) -> Run:
        return Run(self.text, tuple(mark for mark in self.marks if mark.kind is not kind))


Runs = Sequence[Run]


def words(runs: Iterable[Run]) -> str:
    """Return the text alone."""
    return "".join(run.text for run in runs)


def plain(runs: Runs) -> str:
    """Return plain text: URLs in brackets behind their words, ``>`` before quoted lines."""
    groups = groupby(spelled(runs), key=lambda run: run.has(Kind.QUOTE))
    return "".join(quoted(words(group)) if is_quote else words(group) for is_quote, group in groups)


def quoted(text: str) -> str:
    """Return ``text`` with ``>`` before each line, the sign for a quotation in most dialects."""
    return re.sub(r"(?m)^", "> ", text)


def spelled(runs: Runs, keeps: Callable[[str], bool] = lambda url: False) -> list[Run]:
    """Return runs in which the URLs that ``keeps`` refuses stand in brackets behind their words.

    The run of such a URL keeps its mark, so that nothing is done to it as to ordinary text.
    """
    found: list[Run] = []
    for link, group in groupby(runs, key=lambda run: run.mark(Kind.LINK)):
        inside = list(group)
        if link is None or keeps(link.value) or _shows(words(inside), link.value):
            found += inside
            continue
        base = tuple(mark for mark in inside[0].marks if mark.kind is Kind.QUOTE)
        address = link.value.removeprefix("mailto:").partition("?")[0] if _is_mail(link.value) else link.value
        found += [run.without(Kind.LINK) for run in inside]
        found += [Run(" (", base), Run(address, (*base, link)), Run(")", base)]
    return found


def _shows(text: str, url: str) -> bool:
    """Return True if a link's words are its address."""
    shown = text.rstrip("/")
    return shown in (url.rstrip("/"), unquote(url).rstrip("/"), url.removeprefix("mailto:"))


def _is_mail(url: str) -> bool:
    return url.startswith("mailto:")


def steps(runs: Runs) -> Iterator[tuple[Sequence[Mark], Sequence[Mark], Run]]:
    """Yield before each run the marks that end and those that begin. At the end all have ended.

    Whatever the runs are, marks are balanced and nested.
    """
    before: tuple[Mark, ...] = ()
    for run in (*runs, Run("")):
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, run.marks, strict=False))))
        yield before[same:][::-1], run.marks[same:], run
        before = run.marks


def weave(runs: Runs, signs: Callable[[Mark], tuple[str, str]], text: Callable[[Run], str]) -> str:
    """Return the text of the runs between the two signs of each mark."""
    pieces: list[str] = []
    for ended, begun, run in steps(runs):
        pieces += [signs(mark)[1] for mark in ended]
        pieces += [signs(mark)[0] for mark in begun]
        pieces.append(text(run))
    return "".join(pieces)


def cut(runs: Runs, start: int, end: int) -> list[Run]:
    """Return the runs from one character to another: marks that are cut go on in the next part."""
    found, place = [], 0
    for run in runs:
        text = run.text[max(start - place, 0) : max(end - place, 0)]
        place += len(run.text)
        if text:
            found.append(Run(text, run.marks))
    return found


def tidy(runs: Runs) -> list[Run]:
    """Return the runs in the form that the head of this file describes, without white space around all."""
    found = _merged(_free_edges(_merged(runs)))
    for place, strip in ((0, str.lstrip), (-1, str.rstrip)):
        while found:
            text = strip(found[place].text, "\n" if found[place].has(Kind.PRE) and found[place].text.strip() else None)
            if text:
                found[place] = Run(text, found[place].marks)
                break
            del found[place]
    return found


def _free_edges(runs: Runs) -> Iterator[Run]:
    """Take marks from white space at their borders: many dialects read no mark beside a space."""
    for place, run in enumerate(runs):
        if run.has(Kind.PRE) or run.text == run.text.strip():
            yield run
            continue
        before = _shared(run, runs[place - 1]) if place else ()
        after = _shared(run, runs[place + 1]) if place + 1 < len(runs) else ()
        core = run.text.strip()
        lead, _, trail = run.text.partition(core) if core else (run.text, "", "")
        yield Run(lead, before if core else tuple(mark for mark in before if mark in after))
        yield Run(core, run.marks)
        yield Run(trail, after)


def _shared(run: Run, other: Run) -> tuple[Mark, ...]:
    return tuple(mark for mark in run.marks if mark in other.marks)


def _merged(runs: Iterable[Run]) -> list[Run]:
    """Join neighbours under the same marks."""
    groups = groupby((run for run in runs if run.text), key=lambda run: run.marks)
    return [Run(words(group), marks) for marks, group in groups]
