"""Reads Markdown: CommonMark, strikethrough and tables. Pure, and never raises.

What has no meaning stays as it was written: a mark without its partner, HTML, a link that is not
http, https or mailto, and a definition of a link's address, which would be invisible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from markdown_it import MarkdownIt
from markdown_it.rules_block.table import escapedSplit
from markdown_it.token import Token

from channels_ingest.formats.markdown.runs import Kind, Mark, Run, spelled, tidy, words

# Characters of Markdown that are parsed, at most; a longer text is shown as it was written. Larger:
# a text that was made to be slow takes more CPU, which grows with the square. Smaller: long answers
# of language models lose their marks.
MOST = 64 * 1024
# Levels of quotations (one each) and lists (two each) in each other, at most; the parser drops what
# is deeper, so such a text is shown as it was written. Larger: many "[" take more CPU. Smaller:
# fewer levels.
NESTING = 20
# Characters of a link's URL, at most; a longer one is shown as it was written. Larger: links that
# platforms refuse. Smaller: signed addresses of files are no links.
URL_CHARACTERS = 2048
WEB_URL = re.compile(r"(?i)https?://[^\s/?#]|mailto:[^\s@?]+@[^\s@?]")
LANGUAGE = re.compile(r"[\w+#.-]{1,32}")
NEWLINE = re.compile(r"\r\n?|\n")
# Characters of a table's line, at most; a wider table becomes lines of "column: value". Larger:
# lines that a phone breaks. Smaller: more tables without columns.
TABLE_WIDTH = 44

# The parser's name of what stands between two tokens -> our mark.
MARKS = {
    "blockquote": Kind.QUOTE,
    "heading": Kind.BOLD,
    "strong": Kind.BOLD,
    "em": Kind.ITALIC,
    "s": Kind.STRIKE,
}


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # a hook of the library
        return len(url) <= URL_CHARACTERS and WEB_URL.match(url) is not None


def _parser(*extensions: str) -> MarkdownIt:
    parser = _Parser("commonmark", {"html": False, "maxNesting": NESTING})
    return parser.enable([*extensions, "strikethrough"]).disable("reference")


PARSER, WITHOUT_TABLES = _parser("table"), _parser()


def read(source: str) -> list[Run]:
    """Return the runs of a Markdown text."""
    try:
        tokens = _tokens(source) if len(source) <= MOST else []
    except Exception:  # such as RecursionError, for images in images: no text may lose a reply
        tokens = []
    if not tokens or max(token.level for token in tokens) >= NESTING - 1:
        return tidy([Run(source)])
    reader = _Reader()
    reader.read(tokens)
    return tidy(reader.runs)


def _tokens(source: str) -> list[Token]:
    """Parse. A table with a row that is longer than its head is read as text: the parser drops cells."""
    tokens, columns, is_body = PARSER.parse(source), 0, False
    lines = NEWLINE.split(source)
    for token in tokens:
        if token.type == "table_open":
            columns, is_body = 0, False
        columns += token.type == "th_open"
        is_body |= token.type == "tbody_open"
        if is_body and token.type == "tr_open" and token.map and _cells(lines[token.map[0]]) > columns:
            return WITHOUT_TABLES.parse(source)
    return tokens


def _cells(line: str) -> int:
    """Return how many cells a table's row has; it may stand in a quotation."""
    return len(escapedSplit(line.lstrip("> \t").rstrip().removeprefix("|").removesuffix("|")))


class _Reader:
    """Collects runs. ``starts``: the next text begins a block; ``breaks``: it begins a line."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.marks: list[Mark] = []
        self.lists: list[int] = []  # the next number of each list that is open; -1: bullets
        self.links: list[int] = []  # where each link that is open begins
        self.rows: list[list[str]] | None = None
        self.starts = self.breaks = False
        self.indent = ""

    def read(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            name, _, end = token.type.rpartition("_")
            if name in MARKS:
                self._mark(Mark(MARKS[name]), token.nesting)
            elif token.type in HANDLERS:
                HANDLERS[token.type](self, token)
            self.starts |= token.block and end == "close"

    def say(self, text: str, *marks: Mark) -> None:
        """Add text under the open marks and these, behind the newlines that are due."""
        run = Run(NEWLINE.sub(" ", text), tuple(sorted({*self.marks, *marks})))
        if run.has(Kind.PRE):
            run = Run(text, tuple(mark for mark in run.marks if mark.kind in (Kind.QUOTE, Kind.PRE)))
        gap = self._gap(run)
        if gap and not run.has(Kind.PRE):
            run = Run(run.text.lstrip(), run.marks)
        if not run.text:
            return
        if gap:
            last = self.runs[-1]
            self.runs[-1] = last if last.has(Kind.PRE) else Run(last.text.rstrip(), last.marks)
            quote = Mark(Kind.QUOTE)
            self.runs.append(Run(gap + self.indent, (quote,) if quote in last.marks and quote in run.marks else ()))
        self.runs.append(run)
        self.starts, self.breaks, self.indent = False, False, ""

    def _gap(self, run: Run) -> str:
        """Return the newlines before a run: two between paragraphs; one in lists, and beside code and quotations."""
        if not self.runs:
            return ""
        last = self.runs[-1]
        borders = last.has(Kind.PRE) or run.has(Kind.PRE) or last.has(Kind.QUOTE) != run.has(Kind.QUOTE)
        if self.starts and not borders and not self.lists:
            return "\n\n"
        return "\n" if self.starts or borders or self.breaks else ""

    def _mark(self, mark: Mark, nesting: int) -> None:
        if nesting > 0:
            self.marks.append(mark)
        else:
            self.marks.remove(mark)

    # ------------------------------------------------ inside a paragraph

    def inline(self, token: Token) -> None:
        """Read a paragraph's text, or that of a cell."""
        if self.rows is None:
            self.read(token.children or ())
            return
        cell = _Reader()
        cell.read(token.children or ())
        self.rows[-1].append(words(spelled(tidy(cell.runs))))

    def text(self, token: Token) -> None:
        self.say(token.content)

    def code(self, token: Token) -> None:
        self.say(token.content, Mark(Kind.CODE))

    def line_break(self, token: Token) -> None:
        if self.links:
            self.say(" ")
        else:
            self.breaks = True

    def link_open(self, token: Token) -> None:
        self._open_link(str(token.attrs["href"]))

    def _open_link(self, url: str) -> None:
        self.links.append(len(self.runs))
        if len(self.links) == 1 and url:
            self.marks.append(Mark(Kind.LINK, url))

    def link_close(self, token: Token | None = None) -> None:
        """End a link. One without words shows its URL."""
        start = self.links.pop()
        link = next((mark for mark in self.marks if mark.kind is Kind.LINK), None)
        if link and not self.links:
            if not words(self.runs[start:]).strip():
                self.say(link.value)
            self.marks.remove(link)

    def image(self, token: Token) -> None:
        """Read an image as a link: its description, or its URL."""
        self._open_link(str(token.attrs["src"]))
        self.read(token.children or ())
        self.link_close()

    # ------------------------------------------------ blocks

    def pre(self, token: Token) -> None:
        text, language = token.content.strip("\n"), LANGUAGE.match(token.info.strip())
        if text.strip():
            self.starts = True
            self.say(text, Mark(Kind.PRE, language[0] if language else ""))
        self.starts = True

    def rule(self, token: Token) -> None:
        self.starts = True
        self.say("———")
        self.starts = True

    def list_open(self, token: Token) -> None:
        self.lists.append(int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else -1)

    def list_close(self, token: Token) -> None:
        self.lists.pop()

    def item(self, token: Token) -> None:
        number = self.lists[-1]
        self.starts, self.indent = True, "  " * (len(self.lists) - 1)
        self.say("• " if number < 0 else f"{number}. ")
        self.lists[-1] += number >= 0

    def table_open(self, token: Token) -> None:
        self.rows = []

    def row(self, token: Token) -> None:
        if self.rows is not None:
            self.rows.append([])

    def table_close(self, token: Token) -> None:
        """Add a table: aligned if a phone can show it, else a line for each value."""
        (head, *body), self.rows = self.rows or [[]], None
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        if body and sum(widths) + 3 * len(widths) - 3 > TABLE_WIDTH:
            self._lines(head, body)
            return
        rows = [head, ["-" * width for width in widths], *body]
        lines = [" | ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        self.starts = True
        self.say("\n".join(lines), Mark(Kind.PRE))

    def _lines(self, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
        for row in body:
            self.starts = True
            for name, value in zip(head, row, strict=True):
                if value:
                    self.say(f"{name}: {value}" if name else value)
                    self.breaks = True


HANDLERS: Mapping[str, Callable[[_Reader, Token], None]] = {
    "inline": _Reader.inline,
    "text": _Reader.text,
    "code_inline": _Reader.code,
    "softbreak": _Reader.line_break,
    "hardbreak": _Reader.line_break,
    "link_open": _Reader.link_open,
    "link_close": _Reader.link_close,
    "image": _Reader.image,
    "fence": _Reader.pre,
    "code_block": _Reader.pre,
    "hr": _Reader.rule,
    "bullet_list_open": _Reader.list_open,
    "ordered_list_open": _Reader.list_open,
    "bullet_list_close": _Reader.list_close,
    "ordered_list_close": _Reader.list_close,
    "list_item_open": _Reader.item,
    "table_open": _Reader.table_open,
    "tr_open": _Reader.row,
    "table_close": _Reader.table_close,
}
