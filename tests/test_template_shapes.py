"""What a template takes, and what a bot's values make of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from conversations.contracts import Attachment, FilledTemplate, ReplyBody
from conversations.errors import BadOutput
from conversations.template_shapes import Template, TemplateButton, TemplateShape, fill, slots

PICTURE = Attachment(kind="image", file_id="900100")
OURS = Attachment(kind="image", media="2b1f0c9e-0000-4000-8000-000000000001")
OFFICE = Attachment(kind="location", latitude=1.5, longitude=2.5, name="Office")
LINK = TemplateButton(kind="url", text="Track", leads="https://shop.example/{{1}}", takes=True, must=True)
YES = TemplateButton(kind="quick_reply", text="Yes", takes=True, room=5)
SHIPPED = TemplateShape(header="Order {{1}}", body="Hi {{2}}, order {{1}} left.", footer="Your shop",
                        buttons=(YES, LINK), header_room=5)  # fmt: skip
TRIP = TemplateShape(header="To {{city}}", body="{{ name }} goes to {{city}}", named=True)
PHOTO = TemplateShape(media="image", body="Look, {{1}}")
PLACE = TemplateShape(media="location", body="Here")
PLAIN = TemplateShape(body="Nothing to fill")


def made(shape: TemplateShape, values: Any = ()) -> ReplyBody:
    return fill(Template("t", language="de", values=values), shape)


def filled(**parts: Any) -> FilledTemplate:
    return FilledTemplate(name="t", language="de", **parts)


FILLED: list[tuple[TemplateShape, Any, str, FilledTemplate]] = [
    (PLAIN, (), "Nothing to fill", filled()),
    (PLAIN, {}, "Nothing to fill", filled()),
    (SHIPPED, {"2": "Ada", "1": 7, "header": "no. 7", "button 2": "t/7"},
     "Order no. 7\n\nHi Ada, order 7 left.\n\nYour shop",
     filled(header=(("", "no. 7"),), body=(("", "7"), ("", "Ada")), buttons=(("url", 1, "t/7"),))),
    (SHIPPED, {1: "7", 2: "A\n\td     a", "header": "7", "button 1": "yes:7", "button 2": "7"},
     "Order 7\n\nHi A d a, order 7 left.\n\nYour shop",
     filled(header=(("", "7"),), body=(("", "7"), ("", "A d a")),
            buttons=(("quick_reply", 0, "yes:7"), ("url", 1, "7")))),
    (TRIP, {"city": "Haifa", "name": "Ada {{city}}"}, "To Haifa\n\nAda {{city}} goes to Haifa",
     filled(header=(("city", "Haifa"),), body=(("name", "Ada {{city}}"), ("city", "Haifa")))),
    (PHOTO, {"header": PICTURE, "1": "Ada"}, "Look, Ada", filled(media=PICTURE, body=(("", "Ada"),))),
    (PHOTO, {"header": "https://e.org/i.png", "1": "Ada"}, "Look, Ada",
     filled(media=Attachment(kind="image", url="https://e.org/i.png"), body=(("", "Ada"),))),
    (PHOTO, {"header": OURS, "1": "Ada"}, "Look, Ada", filled(media=OURS, body=(("", "Ada"),))),
    (PLACE, {"header": OFFICE}, "Here", filled(media=OFFICE)),
    (TemplateShape(body="".join(f"{{{{{n}}}}}." for n in range(10, 0, -1))), [f"v{n}" for n in range(1, 11)],
     "".join(f"v{n}." for n in range(10, 0, -1)), filled(body=tuple(("", f"v{n}") for n in range(1, 11)))),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "values", "text", "stored"), FILLED)
def test_values_fill_a_template_that_is_stored_whole(shape: TemplateShape, values: Any, text: str, stored: Any) -> None:
    body = made(shape, values)
    assert body == ReplyBody(text=text, template=stored)
    assert msgspec.json.decode(msgspec.json.encode(body), type=ReplyBody) == body
    assert msgspec.convert(msgspec.to_builtins(shape), TemplateShape) == shape


WRONG: list[tuple[TemplateShape, Any, str]] = [
    (PLAIN, ["x"], "takes no values: there is no '1'"),
    (SHIPPED, {}, "takes header, 1, 2, button 1, button 2: header is missing; 1 is missing; 2 is missing; button 2 is"),
    (SHIPPED, {"3": "x"}, "there is no '3'"),
    (TRIP, ["Haifa"], "takes city, name: .*there is no '1'"),
    (TRIP, {"city": " \n", "name": "x"}, "city is empty"),
    (TRIP, {"city": PICTURE, "name": None}, "city must be text; name must be text"),
    (SHIPPED, {"header": "123456", "button 1": "123456"}, "header has 6 characters, 5 at most; button 1 has 6"),
    (PHOTO, {"header": Attachment(kind="video", url="u"), "1": "x"}, "header must be an attachment of the kind image"),
    (PHOTO, {"header": Attachment(kind="image"), "1": "x"}, "header is empty"),
    (PHOTO, {"header": "", "1": "x"}, "header is empty"),
    (PLACE, {"header": "https://e.org"}, "header must be an attachment of the kind location"),
    (PLACE, {"header": Attachment(kind="location", latitude=1.5)}, "header is empty"),
    (PLAIN, "abc", "a template's values are a dict, or a list"),
    (PLAIN, None, "a template's values are a dict, or a list"),
    (TemplateShape(odd="a part carousel"), {}, r"'t' \(de\) has a part carousel, which cannot be filled"),
]


@pytest.mark.parametrize(("shape", "values", "words"), WRONG)
def test_wrong_values_are_named_with_what_the_template_takes(shape: TemplateShape, values: Any, words: str) -> None:
    with pytest.raises(BadOutput, match=words):
        made(shape, values)


def test_each_slot_says_what_it_takes() -> None:
    found = {name: (slot.must, slot.room, slot.media) for name, slot in slots(SHIPPED).items()}
    assert found == {"header": (True, 5, ""), "1": (True, 0, ""), "2": (True, 0, ""), "button 1": (False, 5, ""),
                     "button 2": (True, 0, "")}  # fmt: skip
