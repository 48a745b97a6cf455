"""Templates: WhatsApp's list of them, read, and one with its values as WhatsApp's JSON. Pure.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from channels_ingest.adapters.meta.whatsapp_files import location_object, media_object
from channels_ingest.adapters.reading import Json, maybe_list, maybe_obj, maybe_text, text
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import Attachment, FilledTemplate
from conversations.template_shapes import HEADER, VARIABLE, ListedTemplate, TemplateButton, TemplateShape

# Kind of button -> type and name of its one parameter.
PARAMETERS = {
    "quick_reply": ("payload", "payload"),
    "url": ("text", "text"),
    "copy_code": ("coupon_code", "coupon_code"),
    "flow": ("action", "action"),
}
# Meta's buttons with a value -> the kind, whether the value must be there, its most characters. A
# quick reply without one brings its label back. A URL has one only where it ends in a variable.
VALUED = {
    "QUICK_REPLY": ("quick_reply", False, 200),
    "URL": ("url", True, 2000),
    "OTP": ("url", True, 15),
    "COPY_CODE": ("copy_code", True, 15),
    "FLOW": ("flow", True, 200),
}
PLAIN_BUTTONS = frozenset({"PHONE_NUMBER", "VOICE_CALL", "REQUEST_CONTACT_INFO"})
PLAIN_COMPONENTS = frozenset({"HEADER", "BODY", "FOOTER", "BUTTONS", "CALL_PERMISSION_REQUEST"})
# Format of a header -> our kind of attachment, and that -> the type of its parameter.
MEDIA = {"IMAGE": "image", "VIDEO": "video", "DOCUMENT": "file", "LOCATION": "location"}
HEADERS = {"image": "image", "video": "video", "file": "document"}
# Most characters of a value in a header and in a body. A body that stands alone may hold more.
HEADER_ROOM, BODY_ROOM, LONE_BODY_ROOM = 60, 1024, 32_768


# ---------------------------------------------------------------- reading the list


def read_page(answer: Json) -> tuple[list[ListedTemplate], str]:
    """Return the templates of a page, and the cursor of the next one or ''. Raises ``Unreadable``."""
    if "data" not in answer:
        raise Unreadable("data is missing")
    paging = maybe_obj(answer, "paging")
    after = maybe_text(maybe_obj(paging, "cursors"), "after") if paging.get("next") else ""
    return [_listed(item) for item in maybe_list(answer, "data")], after


def _listed(item: Json) -> ListedTemplate:
    return ListedTemplate(
        name=text(item, "name"),
        language=text(item, "language"),
        status=text(item, "status").lower(),
        category=maybe_text(item, "category").lower(),
        quality=maybe_text(maybe_obj(item, "quality_score"), "score").lower(),
        shape=_shape({text(part, "type").upper(): part for part in maybe_list(item, "components")}),
    )


def _shape(parts: dict[str, Json]) -> TemplateShape:
    """Return what a template says. ``parts``: its components, by type."""
    header, body = parts.get("HEADER", {}), maybe_text(parts.get("BODY", {}), "text")
    title, buttons = maybe_text(header, "text"), maybe_list(parts.get("BUTTONS", {}), "buttons")
    shown = maybe_text(header, "format").upper()
    return TemplateShape(
        body=body,
        header=title,
        media=MEDIA.get(shown, ""),
        footer=maybe_text(parts.get("FOOTER", {}), "text"),
        buttons=tuple(map(_button, buttons)),
        named=bool(re.search(r"[^\d]", "".join(VARIABLE.findall(title + body)))),
        header_room=HEADER_ROOM,
        body_room=BODY_ROOM if len(parts) > 1 else LONE_BODY_ROOM,
        odd=", ".join(_odd(parts, shown, buttons)),
    )


def _odd(parts: dict[str, Json], shown: str, buttons: Sequence[Json]) -> Iterator[str]:
    """Say what of a template we cannot fill."""
    yield from (f"a part {name.lower()}" for name in parts if name not in PLAIN_COMPONENTS)
    if shown not in ("", "TEXT", *MEDIA):
        yield f"a header {shown.lower()}"
    elif shown in MEDIA and HEADER in VARIABLE.findall(maybe_text(parts.get("BODY", {}), "text")):
        yield "a variable named header below another header"
    kinds = [maybe_text(button, "type").upper() for button in buttons]
    yield from (f"a button {kind.lower()}" for kind in kinds if kind not in VALUED and kind not in PLAIN_BUTTONS)


def _button(item: Json) -> TemplateButton:
    kind, url = maybe_text(item, "type").upper(), maybe_text(item, "url")
    base: dict[str, Any] = {"text": maybe_text(item, "text"), "leads": url or maybe_text(item, "phone_number")}
    if kind not in VALUED or (kind == "URL" and not VARIABLE.search(url)):
        return TemplateButton(kind=kind.lower(), **base)
    ours, must, room = VALUED[kind]
    return TemplateButton(kind=ours, **base, takes=True, must=must, room=room)


# ---------------------------------------------------------------- sending one


def template_object(template: FilledTemplate) -> dict[str, Any]:
    """Return the ``template`` of a message."""
    components = list(_components(template))
    return {
        "name": template.name,
        "language": {"code": template.language, "policy": "deterministic"},
        **({"components": components} if components else {}),
    }


def _components(template: FilledTemplate) -> Iterator[dict[str, Any]]:
    if template.media:
        yield {"type": "header", "parameters": [_media(template.media)]}
    if template.header:
        yield {"type": "header", "parameters": _texts(template.header)}
    if template.body:
        yield {"type": "body", "parameters": _texts(template.body)}
    for kind, place, given in template.buttons:
        type_, name = PARAMETERS[kind]
        value: Any = {"flow_token": given} if kind == "flow" else given
        parameter = {"type": type_, name: value}
        yield {"type": "button", "sub_type": kind, "index": str(place), "parameters": [parameter]}


def _texts(values: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return text parameters: by name, or in their order where there is none."""
    return [{"type": "text", **({"parameter_name": name} if name else {}), "text": value} for name, value in values]


def _media(header: Attachment) -> dict[str, Any]:
    if header.kind == "location":
        return {"type": "location", "location": location_object(header)}
    kind = HEADERS.get(header.kind, "document")
    return {"type": kind, kind: media_object(header, kind)}
