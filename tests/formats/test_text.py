"""Cutting long text: parts fit, nothing is lost, no grapheme is cut."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from channels_ingest.adapters.telegram.adapter import Telegram
from channels_ingest.formats.text import Unit, size, split
from conversations.contracts import Attachment, Choice, ReplyBody

FAMILY = "👩\u200d👩\u200d👧\u200d👦"
PIECES = ["a", "bc ", "Ü", FAMILY, "🇩🇪", "e\u0301", ". ", "\n\n", "\r\n", "漢字", "x" * 9]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=80).map("".join)
UNITS = st.sampled_from(list(Unit))


@given(text=TEXTS, limit=st.integers(26, 60), unit=UNITS)
def test_parts_fit_and_nothing_but_white_space_is_lost(text: str, limit: int, unit: Unit) -> None:
    parts = split(text, limit, unit)
    assert all(size(part, unit) <= limit for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


@given(text=TEXTS, limit=st.integers(26, 60), unit=UNITS)
def test_no_grapheme_is_cut(text: str, limit: int, unit: Unit) -> None:
    whole = regex.findall(r"\X", text)
    cut = [grapheme for part in split(text, limit, unit) for grapheme in regex.findall(r"\X", part)]
    assert [grapheme for grapheme in cut if grapheme.strip()] == [grapheme for grapheme in whole if grapheme.strip()]


@pytest.mark.parametrize("units", [4095, 4096, 4097])
def test_the_limit_counts_utf16_units_with_an_emoji_at_the_cut(units: int) -> None:
    text = "x" * (units - 2) + "🙂"
    parts = split(text, 4096)
    assert "".join(parts) == text
    assert [size(part, Unit.UTF16) for part in parts] == ([units] if units <= 4096 else [4095, 2])


def test_borders_are_preferred_in_their_order() -> None:
    paragraph, sentence = "one two. " * 3 + "\n\n", "three four. five six"
    assert split(paragraph + sentence, 40) == [paragraph, sentence]
    assert split("one two three. four five six", 20) == ["one two three. ", "four five six"]
    assert split("onetwo three fourfive", 14) == ["onetwo three ", "fourfive"]


def test_a_grapheme_larger_than_a_part_is_cut_by_character() -> None:
    flood = "a" + "\u0301" * 10_000
    assert "".join(split(flood, 4096)) == flood


@pytest.mark.parametrize("repeated", [".", '."', "\n ", "🙂"])
def test_a_megabyte_of_one_repeated_character_is_split_in_linear_time(repeated: str) -> None:
    """Where splitting is quadratic, this takes minutes."""
    text = repeated * (2**20 // len(repeated))
    parts = split(text, 4096)
    assert all(size(part, Unit.UTF16) <= 4096 for part in parts)
    assert "".join(parts) == text or not text.strip()


def test_choices_and_media_stay_with_the_last_part() -> None:
    choices, media = (Choice(id="a", title="A"),), Attachment(kind="image", file_id="f")
    *head, last = Telegram().split(ReplyBody(text="word " * 2000, choices=choices, media=media))
    assert all(not part.choices and part.media is None for part in head)
    assert (last.choices, last.media, last.text) == (choices, media, "")


def test_a_short_caption_stays_with_its_media_and_a_location_has_none() -> None:
    image, place = Attachment(kind="image", file_id="f"), Attachment(kind="location", latitude=1, longitude=2)
    assert len(Telegram().split(ReplyBody(text="caption", media=image))) == 1
    assert [part.text for part in Telegram().split(ReplyBody(text="here", media=place))] == ["here", ""]
