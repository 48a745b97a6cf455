"""A template with its values, as WhatsApp's JSON. Pure.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/templates. Whoever
calls has checked the values against the template's fetched shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from channels_ingest.adapters.meta.whatsapp_messages import media_object
from conversations.contracts import Attachment, Struct

# Kind of button -> type and name of its one parameter.
BUTTONS = {
    "quick_reply": ("payload", "payload"),
    "url": ("text", "text"),
    "copy_code": ("coupon_code", "coupon_code"),
    "flow": ("action", "action"),
}
# Our kind of attachment -> the type of a header's parameter.
HEADERS = {"image": "image", "video": "video", "file": "document"}
Values = Sequence[str] | Mapping[str, str]


class TemplateButton(Struct, frozen=True):
    """A button that needs a value: ``kind`` of ``BUTTONS``, ``index`` from 0 in the template.

    ``value``: a quick reply's payload, the end of a URL, a coupon code, or a flow's token.
    """

    kind: str
    index: int
    value: str


class TemplateValues(Struct, frozen=True):
    """An approved template and what fills it.

    ``header``: a file, a place, or the values of a text. ``body``: the values in order ({{1}}), or
    by name ({{name}}).
    """

    name: str
    language: str
    header: Attachment | Values = ()
    body: Values = ()
    buttons: tuple[TemplateButton, ...] = ()


def template_object(template: TemplateValues) -> dict[str, Any]:
    """Return the ``template`` of a message."""
    components = list(_components(template))
    return {
        "name": template.name,
        "language": {"code": template.language, "policy": "deterministic"},
        **({"components": components} if components else {}),
    }


def _components(template: TemplateValues) -> Iterator[dict[str, Any]]:
    header = template.header
    if isinstance(header, Attachment):
        yield {"type": "header", "parameters": [_media(header)]}
    elif header:
        yield {"type": "header", "parameters": _texts(header)}
    if template.body:
        yield {"type": "body", "parameters": _texts(template.body)}
    for button in template.buttons:
        kind, name = BUTTONS[button.kind]
        value: Any = {"flow_token": button.value} if button.kind == "flow" else button.value
        parameter = {"type": kind, name: value}
        yield {"type": "button", "sub_type": button.kind, "index": str(button.index), "parameters": [parameter]}


def _texts(values: Values) -> list[dict[str, str]]:
    """Return text parameters. WhatsApp refuses line ends, tabs and more than 4 spaces in a row."""
    if isinstance(values, Mapping):
        return [{"type": "text", "parameter_name": name, "text": _line(value)} for name, value in values.items()]
    return [{"type": "text", "text": _line(value)} for value in values]


def _line(value: str) -> str:
    """Return a value on one line, with single spaces."""
    return " ".join(value.split())


def _media(header: Attachment) -> dict[str, Any]:
    if header.kind == "location":
        place = {"latitude": str(header.latitude), "longitude": str(header.longitude), "name": header.name}
        return {"type": "location", "location": place}
    kind = HEADERS.get(header.kind, "document")
    return {"type": kind, kind: media_object(header, kind)}
