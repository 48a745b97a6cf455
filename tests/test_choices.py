"""What may be offered, and what a typed message chooses: tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from channels_ingest.adapters.base import Form
from channels_ingest.adapters.generic import Generic
from channels_ingest.adapters.telegram.adapter import Telegram
from channels_ingest.adapters.web import Web
from conversations import choices
from conversations.contracts import Attachment, Choice, ReplyBody
from conversations.errors import BadOutput

TEAS = ("Green tea", "Black tea", "Tea", "✅ None, thanks!")
PACKS = ("3 packs", "5 packs", "10 packs")


def question(*titles: str, numbered: bool = False) -> ReplyBody:
    offered = tuple(Choice(id=str(place), title=title) for place, title in enumerate(titles, 1))
    return ReplyBody(text="?", choices=offered, numbered=numbered)


@pytest.mark.parametrize(
    ("titles", "said", "place"),
    [
        (TEAS, "2", 2), (TEAS, "2.", 2), (TEAS, " #2 ", 2), (TEAS, "2\ufe0f\u20e3", 2), (TEAS, "٢", 2), (TEAS, "02", 2),
        (TEAS, "0", None), (TEAS, "5", None), (TEAS, "2 please", None), (TEAS, "-2", None), (TEAS, "2?", None),
        (TEAS, "9" * 150, None), (("9" * 5000, "Tea"), "2", None), (("9" * 5000, "Tea"), "tea", 2),
        (TEAS, "green TEA", 1), (TEAS, "\u3000ｇｒｅｅｎ  tea", 1), (TEAS, "none, thanks", 4),
        (TEAS, "Green tea?", None),
        (TEAS, "tea", 3), (TEAS, "tea!", 3),  # a whole label, though others hold the word
        (TEAS, "b", 2), (TEAS, "no", 4), (TEAS, "green tea, please", None), (TEAS, "", None), (TEAS, "!", None),
        (("Yes", "Yesterday"), "ye", None), (("Yes", "Yesterday"), "yes", 1), (("Yes", "Yesterday"), "yest", 2),
        (("👍", "👎"), "👎", 2), (("C", "C#"), "c#", 2), (("C", "C#"), "c", 1),
        (("1", "2", "3"), "2", 2), (PACKS, "3", 1), (PACKS, "10", 3), (PACKS, "1", None), (PACKS, "2", None),
        (("2.5 kg", "25 kg"), "2", None), (("2. Tea", "Cake"), "2", 1), (("Cake", "2. Tea", "3. Tea"), "3", 3),
        (("x" * 201, "y"), "x" * 201, None),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_a_number_a_label_or_its_beginning_is_the_choice(titles: tuple[str, ...], said: str, place: int | None) -> None:
    chosen = choices.typed(said, question(*titles))
    assert (chosen and int(chosen.id)) == place


def test_where_the_text_shows_numbers_the_number_comes_first() -> None:
    chosen = choices.typed("3", question(*PACKS, numbered=True))
    assert chosen is not None
    assert chosen.title == "10 packs"
    assert choices.typed("tea", question("Tea", "tea", numbered=True)) is None


@pytest.mark.parametrize(("kind", "payload", "chosen"), [
    ("message", {}, True),
    ("message", {"target": "q1"}, True),
    ("message", {"target": "another"}, False),
    ("message", {"attachments": [{"kind": "image"}]}, False),
    ("message", {"command": "tea"}, False),
    ("edit", {}, False),
    ("unsupported", {}, False),
])  # fmt: skip
def test_only_plain_words_answer_not_those_that_quote_another(kind: str, payload: dict[str, Any], chosen: bool) -> None:
    offered = msgspec.to_builtins(question("Tea", "Cake"))
    expected = ("button", {**payload, "payload": "2", "target": "q1"}) if chosen else (kind, payload)
    assert choices.meant(kind, "cake", payload, offered, "q1") == expected
    assert choices.meant(kind, "cake", payload, None, "") == (kind, payload)


def test_a_press_brings_its_value_back_also_if_it_travelled_as_a_digest() -> None:
    long = Choice(id="order:" + "7" * 190, title="Seven")
    offered = msgspec.to_builtins(ReplyBody(choices=(Choice(id="~own", title="Own"), long)))
    for pressed, value in {long.short(64): long.id, "~own": "~own", "~other": "~other", "x": "x"}.items():
        assert choices.meant("button", "", {"payload": pressed}, offered, "")[1]["payload"] == value


@pytest.mark.parametrize(("offered", "words"), [
    ([("x" * 200, "fits")] * 100, ""),
    ([("ä" * 101, "Long")], "the value of choice 1 has 202 bytes, 200 at most"),
    (["Tea", ("id", " ")], "choice 2 has no title"),
    ([""], "choice 1 has no title"),
    (["Tea"] * 101, "101 choices in one reply, 100 at most"),
])  # fmt: skip
def test_what_no_platform_can_offer_is_refused_at_once(offered: list[Any], words: str) -> None:
    if not words:
        assert len(choices.checked(offered)) == len(offered)
        return
    with pytest.raises(BadOutput, match=words):
        choices.checked(offered)


class Narrow(Generic):
    """Three buttons, else a list of ten, as WhatsApp has them."""

    text_size = caption_size = 200
    forms = (
        Form(name="buttons", most=3, title_size=20, text_size=50, beside=frozenset({"image"})),
        Form(name="list", most=10, title_size=24, beside=frozenset()),
    )


@pytest.mark.parametrize(
    ("titles", "form"),
    [
        (["a"] * 3, "buttons"), (["a"] * 4, "list"), (["a"] * 10, "list"), (["a"] * 11, None),
        (["x" * 20], "buttons"), (["x" * 21], "list"), (["x" * 24], "list"), (["x" * 25], None), (["🙂" * 11], "list"),
        (["x" * 18] * 2, "list"),  # too long for a button once they are numbered
    ],
)  # fmt: skip
def test_choices_take_the_first_form_that_fits_else_numbered_text(titles: list[str], form: str | None) -> None:
    (*_, body) = Narrow().split(question(*titles))
    found = Narrow().form(body.buttons)
    assert (found and found.name) == form
    assert len(body.choices) == len(titles)
    assert body.numbered is (form is None)


@pytest.mark.parametrize("adapter", [Telegram, Web, Generic], ids=lambda adapter: str(adapter.platform))
def test_equal_labels_are_numbered_on_every_platform(adapter: Any) -> None:
    (body,) = adapter().split(question("Cake", "Tea", "tea "))
    assert [choice.title for choice in body.buttons] == ["Cake", "2. Tea", "3. tea "]


def test_numbered_text_holds_every_choice_once() -> None:
    body = ReplyBody(text="Which?", choices=(Choice(id="a", title="Tea\nor so"), Choice(id="b", title="Tea" * 20)))
    (part,) = Telegram().split(body)
    assert (part.text, part.choices, part.buttons) == (f"Which?\n\n1. Tea or so\n2. {'Tea' * 20}", body.choices, ())
    (part,) = Telegram().split(msgspec.structs.replace(body, text=""))
    assert part.text.startswith("1. Tea")


@pytest.mark.parametrize(("kind", "many", "parts"), [
    ("image", 3, 1), ("audio", 3, 2), ("image", 4, 2), ("image", 11, 1),
])  # fmt: skip
def test_media_that_cannot_stand_beside_the_choices_goes_ahead(kind: str, many: int, parts: int) -> None:
    media = Attachment(kind=kind, url="https://example.org/a")
    body = msgspec.structs.replace(question(*["a"] * many), media=media)
    first, *_ = split = Narrow().split(body)
    assert (len(split), first.media, split[-1].text[:1], len(split[-1].choices)) == (parts, media, "?", many)


def test_text_too_long_for_the_form_goes_ahead_of_it() -> None:
    *ahead, last = Narrow().split(ReplyBody(text="word " * 50, choices=question("a", "b").choices))
    assert all(not part.choices for part in ahead)
    assert len(last.choices) == 2
    assert len(last.text) <= 50
    assert "".join(part.text for part in [*ahead, last]) == "word " * 50
