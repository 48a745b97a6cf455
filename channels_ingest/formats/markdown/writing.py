"""Writes runs as Markdown that reads as the same runs, as far as Markdown can say them. Pure."""

from __future__ import annotations

import re
from itertools import groupby

from channels_ingest.formats.markdown.runs import Kind, Mark, Run, Runs, quoted, weave, words

SPECIAL = re.compile(r"[\\`*_~\[\]<>&|]")
# What would begin a block: a heading, a list, a rule, a table.
LINE_STARTS = ((re.compile(r"(?m)^(?=[#+\-=:])"), r"\\"), (re.compile(r"(?m)^(\d{1,9})(?=[.)])"), r"\1\\"))
INDENT = re.compile(r"(?<=\n)[ \t]+")
TICKS = re.compile("`+")


def write(runs: Runs, italic: str = "_") -> str:
    """Return Markdown. ``italic``: the sign for italics; ``*`` may stand within a word, ``_`` beside ``**``."""
    blocks = []
    for is_quote, group in groupby(runs, key=lambda run: run.has(Kind.QUOTE)):
        inner = [_block(pre, list(part), italic) for pre, part in groupby(group, key=lambda run: run.mark(Kind.PRE))]
        text = "\n\n".join(filter(None, inner))
        blocks.append(quoted(text) if is_quote and text else text)
    return "\n\n".join(filter(None, blocks))


def _block(pre: Mark | None, runs: Runs, italic: str) -> str:
    """Return a fenced block of code, or paragraphs."""
    if pre:
        code = words(runs)
        fence = _longer(code, 3)
        return f"{fence}{pre.value}\n{code}\n{fence}"
    signs = {Kind.STRIKE: "~~", Kind.BOLD: "**", Kind.ITALIC: italic}

    def both(mark: Mark) -> tuple[str, str]:
        if mark.kind is Kind.LINK:
            return "[", f"](<{mark.value}>)"
        return (signs.get(mark.kind, ""),) * 2

    return weave(runs, both, _text).strip("\n")


def _text(run: Run) -> str:
    if not run.has(Kind.CODE):
        return escaped(run.text)
    ticks, text = _longer(run.text, 1), run.text
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{room}{text}{room}{ticks}"


def escaped(text: str) -> str:
    """Return Markdown that shows ``text`` as it is."""
    text = SPECIAL.sub(r"\\\g<0>", text)
    for start, sign in LINE_STARTS:
        text = start.sub(sign, text)
    return INDENT.sub(lambda found: "".join(f"&#{ord(char)};" for char in found[0]), text)


def _longer(code: str, least: int) -> str:
    """Return more backticks than ``code`` has in a row."""
    return "`" * max(least, 1 + max(map(len, TICKS.findall(code)), default=0))
