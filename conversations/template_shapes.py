"""Templates: what a platform approved of one, and a bot's values in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from conversations.contracts import Attachment, FilledTemplate, ReplyBody, Struct
from conversations.errors import BadOutput

VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
HEADER = "header"  # the name of the value of a header that has no name of its own
BUTTON = "button "  # before a button's number, from 1: the name of its value


class Template(Struct, frozen=True, kw_only=False, forbid_unknown_fields=True):
    """A template as a bot sends it: ``Template("order_shipped", language="de", values={...})``.

    ``values``: by the names that ``slots`` returns, or those of the body in their order. A picture,
    a file or a place in the header is an attachment or, except for a place, its URL.
    """

    name: str
    language: str
    values: Mapping[str, str | Attachment] | Sequence[str] = {}


class TemplateButton(Struct, frozen=True):
    """A button. ``kind``: quick_reply, url, copy_code, flow, or another word of the platform.

    ``leads``: what it opens. ``takes``: it may have a value; ``must``: it must have one, of at most
    ``room`` characters (0: no limit).
    """

    kind: str
    text: str = ""
    leads: str = ""
    takes: bool = False
    must: bool = False
    room: int = 0


class TemplateShape(Struct, frozen=True):
    """What a template says, with its variables: ``{{1}}``, or ``{{name}}`` where it is ``named``.

    ``media``: the kind of attachment in its header: image, video, file or location. ``..._room``:
    most characters of one value; 0: no limit. ``odd``: what of it we cannot fill, in words.
    """

    body: str = ""
    header: str = ""
    media: str = ""
    footer: str = ""
    buttons: tuple[TemplateButton, ...] = ()
    named: bool = False
    header_room: int = 0
    body_room: int = 0
    odd: str = ""


class ListedTemplate(Struct, frozen=True):
    """A template as the platform lists it, its words in lower case: approved, paused, utility."""

    name: str
    language: str
    status: str
    category: str = ""
    quality: str = ""
    shape: TemplateShape = TemplateShape()


class Slot(NamedTuple):
    """What a value must be. ``media``: the kind of an attachment; '' for text."""

    must: bool = True
    room: int = 0
    media: str = ""


def slots(shape: TemplateShape) -> dict[str, Slot]:
    """Return what a template takes, by name, in the order in which it is read.

    The body's variables and a named header have their own names. Any other header's value is
    ``header``, and that of the second button ``button 2``.
    """
    found: dict[str, Slot] = {}
    if shape.media:
        found[HEADER] = Slot(media=shape.media)
    for name in _variables(shape.header):
        found[name if shape.named else HEADER] = Slot(room=shape.header_room)
    for name in _variables(shape.body):
        found[name] = Slot(room=shape.body_room)
    for place, button in enumerate(shape.buttons, 1):
        if button.takes:
            found[f"{BUTTON}{place}"] = Slot(must=button.must, room=button.room)
    return found


def fill(template: Template, shape: TemplateShape, category: str = "") -> ReplyBody:
    """Return the reply that a template makes with a bot's values. Raises ``BadOutput``."""
    what = f"template {template.name!r} ({template.language})"
    if shape.odd:
        raise BadOutput(f"{what} has {shape.odd}, which cannot be filled")
    takes = slots(shape)
    given = _given(template.values)
    wrong = [f"{name} is missing" for name, slot in takes.items() if slot.must and name not in given]
    wrong += [f"there is no {name!r}" for name in given if name not in takes]
    wrong += [f"{name} {why}" for name, value in given.items() if name in takes for why in _faults(value, takes[name])]
    if wrong:
        raise BadOutput(f"{what} takes {', '.join(takes) or 'no values'}: {'; '.join(wrong)}")
    media = _media(given.pop(HEADER), shape.media) if shape.media else None
    values = {name: " ".join(str(value).split()) for name, value in given.items()}
    header = [(name if shape.named else HEADER) for name in _variables(shape.header)]
    filled = FilledTemplate(
        name=template.name,
        language=template.language,
        category=category,
        media=media,
        header=tuple((name if shape.named else "", values[name]) for name in header),
        body=tuple((name if shape.named else "", values[name]) for name in _variables(shape.body)),
        buttons=tuple(_pressed(shape, values)),
    )
    return ReplyBody(text=_text(shape, values), template=filled)


def _given(values: Any) -> dict[str, Any]:
    if isinstance(values, str) or not isinstance(values, Mapping | Sequence):
        raise BadOutput("a template's values are a dict, or a list for the body's variables in their order")
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values, 1)
    return {str(name): value for name, value in pairs}


def _faults(value: Any, slot: Slot) -> Iterator[str]:
    """Say what is wrong with a value."""
    if slot.media:
        is_file = isinstance(value, Attachment) and value.kind == slot.media
        if not is_file and (slot.media == "location" or not isinstance(value, str)):
            yield f"must be an attachment of the kind {slot.media}"
        elif not (_has_source(value) if is_file else value):
            yield "is empty"
    elif not isinstance(value, str | int | float):
        yield "must be text"
    elif not str(value).strip():
        yield "is empty"
    elif slot.room and len(str(value)) > slot.room:
        yield f"has {len(str(value))} characters, {slot.room} at most"


def _has_source(media: Attachment) -> bool:
    """Return True if an attachment says where its file, or the place, is."""
    return bool(media.url or media.file_id or media.media) or None not in (media.latitude, media.longitude)


def _media(value: Any, kind: str) -> Attachment:
    return value if isinstance(value, Attachment) else Attachment(kind=kind, url=value)


def _pressed(shape: TemplateShape, values: Mapping[str, str]) -> Iterator[tuple[str, int, str]]:
    """Yield kind, place and value of each button that has a value."""
    for place, button in enumerate(shape.buttons):
        value = values.get(f"{BUTTON}{place + 1}")
        if value is not None:
            yield button.kind, place, value


def _text(shape: TemplateShape, values: Mapping[str, str]) -> str:
    """Return what the person reads: header, body and footer."""
    header = VARIABLE.sub(lambda found: values[found[1] if shape.named else HEADER], shape.header)
    body = VARIABLE.sub(lambda found: values[found[1]], shape.body)
    return "\n\n".join(filter(None, (header, body, shape.footer)))


def _variables(text: str) -> list[str]:
    """Return the names of the variables, each once: numbers in their order, names as they stand."""
    names = list(dict.fromkeys(VARIABLE.findall(text)))
    return sorted(names, key=int) if all(map(str.isdecimal, names)) else names
