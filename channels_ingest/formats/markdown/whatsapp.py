"""WhatsApp's marks. Pure.

A mark stands at the border of a word and ends in its line. No escape exists: a zero-width space
keeps a sign apart that is none of ours. Links are text and URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from channels_ingest.formats.markdown.runs import Kind, Mark, Run, Runs, quoted, spelled, weave, words

APART = "\u200b"
SIGNS = {Kind.PRE: "```", Kind.STRIKE: "~", Kind.BOLD: "*", Kind.ITALIC: "_", Kind.CODE: "`"}
# A sign in ordinary text that may begin or end a mark, and one of a quotation.
STRAY = re.compile(r"(?m)(?<!\w)[*_~`](?=\S)|(?<=\S)[*_~`](?!\w)|^>")
URL = re.compile(r"https?://\S+")
VERBATIM = (Kind.PRE, Kind.LINK, Kind.CODE)


def render(runs: Runs) -> str:
    """Return the text of a message."""
    runs = [run.without(Kind.PRE) if run.has(Kind.QUOTE) else run for run in spelled(runs)]
    for kind in (Kind.STRIKE, Kind.BOLD, Kind.ITALIC, Kind.CODE):
        runs = list(_at_words(runs, kind))
    groups = groupby(_kept_apart(runs), key=lambda run: run.has(Kind.QUOTE))
    return "".join(quoted(_marked(list(group))) if is_quote else _marked(list(group)) for is_quote, group in groups)


def _marked(runs: Runs) -> str:
    return weave(runs, _signs, lambda run: run.text)


def _signs(mark: Mark) -> tuple[str, str]:
    return (SIGNS.get(mark.kind, ""),) * 2


def _at_words(runs: Runs, kind: Kind) -> Iterator[Run]:
    """Drop a mark that begins or ends within a word, where people would see its signs."""
    text, place = words(runs), 0
    for is_marked, group in groupby(runs, key=lambda run: run.has(kind)):
        inside = list(group)
        start, place = place, place + len(words(inside))
        in_word = text[max(start - 1, 0) : start].isalnum() or text[place : place + 1].isalnum()
        drops = is_marked and (in_word or (kind is Kind.CODE and "`" in text[start:place]))
        yield from (run.without(kind) for run in inside) if drops else inside


def _kept_apart(runs: Runs) -> Iterator[Run]:
    """Put zero-width spaces around the stray signs of ordinary text, and into fences within code."""
    text, place = words(runs), 0
    urls = {number for url in URL.finditer(text) for number in range(*url.span())}
    strays = {sign.start() for sign in STRAY.finditer(text)} - urls
    for run in runs:
        if run.has(Kind.PRE):
            yield Run(run.text.replace("```", f"`{APART}`{APART}`"), run.marks)
        elif run.has(*VERBATIM):
            yield run
        else:
            signs = (
                f"{APART}{sign}{APART}" if number in strays else sign for number, sign in enumerate(run.text, place)
            )
            yield Run("".join(signs), run.marks)
        place += len(run.text)
