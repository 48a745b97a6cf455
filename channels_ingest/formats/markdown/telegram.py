"""Telegram's ``entities``: nothing is escaped, and no syntax can be refused. Pure.

Source: https://core.telegram.org/bots/api#messageentity
"""

from __future__ import annotations

from typing import Any

from channels_ingest.formats.markdown.runs import Kind, Mark, Run, Runs, spelled, steps, words
from channels_ingest.formats.text import Unit, size

# Entities of one message, at most; Telegram shows no more. Larger: none. Smaller: marks are lost.
MOST = 100
TYPES = {
    Kind.QUOTE: "blockquote",
    Kind.PRE: "pre",
    Kind.LINK: "text_link",
    Kind.STRIKE: "strikethrough",
    Kind.BOLD: "bold",
    Kind.ITALIC: "italic",
    Kind.CODE: "code",
}
VALUES = {Kind.PRE: "language", Kind.LINK: "url"}


def text(runs: Runs) -> str:
    """Return the text of a message, which the limits count."""
    return words(_taken(runs))


def entities(runs: Runs) -> list[dict[str, Any]]:
    """Return the entities of ``text(runs)``, outer before inner. Offsets and lengths are in UTF-16 units."""
    found: list[dict[str, Any]] = []
    starts: list[int] = []
    place = 0
    for ended, begun, run in steps([_allowed(run) for run in _taken(runs)]):
        found += [_entity(mark, start := starts.pop(), place - start) for mark in ended]
        starts += [place] * len(begun)
        place += size(run.text, Unit.UTF16)
    found.reverse()  # of marks over the same text the outer one ends last
    return sorted(found, key=lambda entity: (entity["offset"], -entity["length"]))[:MOST]


def _taken(runs: Runs) -> list[Run]:
    """Spell out links to addresses of mail, which Telegram does not take."""
    return spelled(runs, lambda url: not url.startswith("mailto:"))


def _allowed(run: Run) -> Run:
    """Drop marks that Telegram does not take: others beside ``code``, which yields to a link, and mail."""
    link = run.mark(Kind.LINK)
    if link and link.value.startswith("mailto:"):
        run = run.without(Kind.LINK)
    elif link:
        run = run.without(Kind.CODE)
    if run.has(Kind.CODE):
        return Run(run.text, tuple(mark for mark in run.marks if mark.kind in (Kind.QUOTE, Kind.CODE)))
    return run


def _entity(mark: Mark, offset: int, length: int) -> dict[str, Any]:
    value = {VALUES[mark.kind]: mark.value} if mark.kind in VALUES and mark.value else {}
    return {"type": TYPES[mark.kind], "offset": offset, "length": length, **value}
