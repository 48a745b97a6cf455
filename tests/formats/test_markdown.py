"""Markdown in each dialect: what is shown, and that whatever is written is balanced, fits and keeps its words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.adapters.telegram.adapter import Telegram
from channels_ingest.adapters.web import Web
from channels_ingest.formats.markdown import safe_html, telegram, whatsapp
from channels_ingest.formats.markdown.reading import MOST, URL_CHARACTERS, read
from channels_ingest.formats.markdown.runs import Runs, plain, words
from channels_ingest.formats.markdown.splitting import Part, Room, split
from channels_ingest.formats.text import Unit, size
from conversations.contracts import Attachment, Choice, ReplyBody
from tests.kit.fixtures import FIXTURES

FAMILY = "👩\u200d👩\u200d👧\u200d👦"
# Markdown -> plain text; entities of Telegram as [type, its text]; WhatsApp; HTML.
SHOWN = json.loads((FIXTURES / "markdown.json").read_text())


def marked(text: str, entity: dict[str, Any]) -> str:
    raw, start = text.encode("utf-16-le"), entity["offset"] * 2
    return raw[start : start + entity["length"] * 2].decode("utf-16-le")


@pytest.mark.parametrize("source", SHOWN)
def test_each_dialect_shows_it_its_own_way(source: str) -> None:
    runs = read(source)
    text = telegram.text(runs)
    found = [[entity["type"], marked(text, entity)] for entity in telegram.entities(runs)]
    assert {"plain": plain(runs), "telegram": found, "whatsapp": whatsapp.render(runs),
            "html": safe_html.render(runs)} == SHOWN[source]  # fmt: skip


def test_entities_name_the_link_and_the_language() -> None:
    assert telegram.entities(read("[a](https://e.org/)\n```py\nb\n```")) == [
        {"type": "text_link", "offset": 0, "length": 1, "url": "https://e.org/"},
        {"type": "pre", "offset": 2, "length": 1, "language": "py"},
    ]
    assert len(telegram.entities(read("**a** b " * 150))) == telegram.MOST


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//e.org", "/a", "ftp://e.org",
                                 "https://", "mailto:", "https://e.org/" + "x" * URL_CHARACTERS])  # fmt: skip
def test_what_is_no_link_to_the_web_or_to_mail_stays_text(url: str) -> None:
    assert words(read(f"[a]({url})")) == f"[a]({url})"
    assert "<a" not in safe_html.render(read(f"[a]({url}) <{url}> ![b]({url})"))


@pytest.mark.parametrize("source", ["word " * (MOST // 4), "> " * 60 + "deep", "- " * 60 + "deep"])
def test_what_is_too_large_or_too_deep_is_shown_as_it_was_written(source: str) -> None:
    assert words(read(source)) == source.strip()


def test_cells_beyond_a_tables_head_are_kept_by_reading_it_as_text() -> None:
    assert "three" in words(read("> | a | b |\n> |---|---|\n> | one | two | three |"))


# ---------------------------------------------------------------- parts

PIECES = ["**", "*", "_", "~~", "`", "```\n", "> ", "- ", "1. ", "# ", "[", "](https://e.org/a)", "<https://e.org>",
          "![", "|", "|--|--|\n", "\\", "&amp;", "\n", "\n", "\n\n", " ", " ", "word", "Ü", FAMILY, "e\u0301", "x" * 30,
          "    ", "\t", "=", "\u00a0", "(", "http://x.org/_y_"]  # fmt: skip
SOURCES = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=60).map("".join)
DIALECTS: list[Callable[[Runs], str]] = [plain, telegram.text, whatsapp.render]


def shown(part: Part, render: Callable[[Runs], str]) -> str:
    return render(read(part.markdown)) if part.markdown else part.text


def kept(text: str) -> str:
    """All but white space, signs of quotations, and URLs behind links: a link that is cut has its URL twice."""
    text = re.sub(r"[\s>]", "", text)
    while "(https://e.org/a)" in text:
        text = text.replace("(https://e.org/a)", "")
    return text


@pytest.mark.parametrize("render", DIALECTS)
@given(source=SOURCES, limit=st.integers(50, 90), unit=st.sampled_from(list(Unit)))
def test_shown_parts_fit_and_lose_no_word(render: Callable[[Runs], str], source: str, limit: int, unit: Unit) -> None:
    room = Room(limit, unit, render)
    parts = split(source, room)
    assert all(size(shown(part, render), unit) <= limit for part in parts)
    assert all(split(part.markdown, room) == [part] for part in parts if part.markdown)
    assert kept("".join(part.text for part in parts)) == kept(plain(read(source)))


class Tags(HTMLParser):
    """Which elements are open; fails for one that is closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"b", "i", "s", "code", "pre", "blockquote", "a", "br"}
        assert {name for name, _ in attrs} == ({"href", "target", "rel"} if tag == "a" else set())
        self.open += [tag] * (tag != "br")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@given(source=SOURCES)
def test_marks_are_balanced_whatever_is_written(source: str) -> None:
    runs = read(source)
    tags = Tags()
    tags.feed(safe_html.render(runs))
    tags.close()
    assert tags.open == []
    assert "".join(tags.text.split()) == "".join(words(runs).split())
    text, spans = telegram.text(runs), []
    for entity in telegram.entities(runs):
        start, end = entity["offset"], entity["offset"] + entity["length"]
        assert 0 <= start < end <= size(text, Unit.UTF16)
        assert all(end <= first or start >= last or (first <= start and end <= last) for first, last in spans)
        spans.append((start, end))


def test_a_mark_a_quotation_and_a_fence_go_on_in_the_next_part_and_a_link_is_not_cut() -> None:
    room = Room(60, Unit.UTF16, plain)
    code = "\n".join(f"line {number}" for number in range(12))
    bold = " ".join(["**" + "many words that are bold " * 4 + "end**", "[a link of four words](https://e.org/a)"])
    parts = split(f"{bold}\n\n> {'quoted words ' * 8}\n\n```py\n{code}\n```", room)
    assert [part.markdown[:2] for part in parts[:2]] == ["**", "**"]
    assert [part.markdown for part in parts if "link" in part.markdown] == ["[a link of four words](<https://e.org/a>)"]
    assert sum(part.markdown.startswith("> ") for part in parts) == 2
    fences = [part.markdown for part in parts if "line " in part.text]
    assert len(fences) == 3
    assert all(re.search(r"^```py\n(line \d+\n?)+```$", fence, re.M) for fence in fences)


def test_a_url_that_is_too_long_for_a_part_becomes_text() -> None:
    url = "https://e.org/" + "x" * 200
    parts = split(f"[a]({url})", Room(60, Unit.UTF16, plain))
    assert "".join(part.text for part in parts).replace(" ", "") == f"a({url})"


# ---------------------------------------------------------------- replies


def test_markdown_is_stored_as_it_was_written_with_plain_text_beside_it() -> None:
    body = ReplyBody(markdown="**a**  [b](https://e.org)", choices=(Choice(id="y", title="Yes"),))
    (part,) = Telegram().split(body)
    assert part == msgspec.structs.replace(body, text="a  b (https://e.org)")
    assert Telegram().split(part) == [part]
    assert Web().split(ReplyBody(text="**a**")) == [ReplyBody(text="**a**")]


def test_length_is_counted_after_rendering() -> None:
    assert len(Telegram().split(ReplyBody(markdown="**" + "x" * 4096 + "**"))) == 1
    assert len(Telegram().split(ReplyBody(markdown="[x](https://e.org/long) " * 2048))) == 1
    assert [len(part.text) for part in Telegram().split(ReplyBody(markdown="**" + "x" * 4097 + "**"))] == [4096, 1]


def test_a_caption_is_counted_after_rendering_too() -> None:
    image = Attachment(kind="image", file_id="f")
    assert len(Telegram().split(ReplyBody(markdown="**" + "x" * 1024 + "**", media=image))) == 1
    head, last = Telegram().split(ReplyBody(markdown="**" + "x" * 1025 + "**", media=image))
    assert (head.media, last) == (None, ReplyBody(media=image))


def test_a_process_of_the_version_before_reads_the_plain_text() -> None:
    class Before(msgspec.Struct, frozen=True):
        text: str = ""

    stored = msgspec.to_builtins(Telegram().split(ReplyBody(markdown="**a**"))[0])
    assert stored == {"text": "a", "markdown": "**a**"}
    assert msgspec.convert(stored, Before) == Before(text="a")
    assert msgspec.convert({"text": "a"}, ReplyBody) == ReplyBody(text="a")


def test_numbered_choices_below_markdown_show_their_own_numbers_and_no_marks() -> None:
    long = Choice(id="a", title="*a*" + "x" * 60)
    (part,) = Telegram().split(ReplyBody(markdown="1. **one**\n2. two", choices=(long,)))
    assert (part.text, part.numbered) == (f"1. one\n2. two\n\n1. {long.title}", True)
