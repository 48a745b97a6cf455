"""Reads what a WhatsApp message says: kind, words, attachments, a pressed button, an order.

Pure. Source:
https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages.
Each reader takes a message and returns fields of an ``Entry``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from channels_ingest.adapters.reading import Json, any_id, bigint, maybe_list, maybe_obj, maybe_text, number, obj, text
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import Attachment, Kind

# Type of a message with a file -> our kind of attachment.
FILES = {
    "image": "image",
    "video": "video",
    "audio": "audio",
    "voice": "voice",
    "document": "file",
    "sticker": "sticker",
}
# What a file says beside id, type and name: kept, because fetching it checks or needs them.
FILE_FACTS = ("sha256", "url", "animated")
# Members beside the content that an entry keeps: what an ad or a product page says, and faults.
KEPT = ("referral", "identity", "errors")
CONTEXT_KEPT = ("forwarded", "frequently_forwarded", "referred_product")

Fields = dict[str, Any]


def read_content(message: Json) -> Fields:
    """Return kind, text and whatever else there is of an ``Entry``.

    A type that this file does not know becomes UNSUPPORTED, and so does one that comes with errors
    in place of its content, as a file over 100 MB does.
    """
    kind = text(message, "type")
    if kind not in CONTENT or (kind not in message and "errors" in message):
        return _unsupported(message)
    return CONTENT[kind](message)


def read_around(message: Json) -> tuple[str, Fields]:
    """Return the message that is answered, '' if none, and what else is kept of the surroundings."""
    context = maybe_obj(message, "context")
    kept = {name: message[name] for name in KEPT if name in message}
    kept |= {name: context[name] for name in CONTEXT_KEPT if name in context}
    return (any_id(context, "id") if context.get("id") is not None else ""), kept


def _text(message: Json) -> Fields:
    return {"kind": Kind.MESSAGE, "text": text(obj(message, "text"), "body")}


def _file(message: Json) -> Fields:
    """Read a file. A voice note is an audio that says so."""
    kind = text(message, "type")
    file = obj(message, kind)
    attachment = Attachment(
        kind="voice" if file.get("voice") is True else FILES[kind],
        mime_type=maybe_text(file, "mime_type"),
        file_id=any_id(file, "id", "media id"),
        name=maybe_text(file, "filename"),
        size=bigint(file.get("file_size")),
    )
    facts = {name: file[name] for name in FILE_FACTS if file.get(name)}
    return {
        "kind": Kind.MESSAGE,
        "text": maybe_text(file, "caption"),
        "attachments": (attachment,),
        "data": {"file": facts} if facts else {},
    }


def _location(message: Json) -> Fields:
    place = obj(message, "location")
    attachment = Attachment(
        kind="location",
        name=maybe_text(place, "name"),
        latitude=number(place, "latitude"),
        longitude=number(place, "longitude"),
    )
    kept = {name: place[name] for name in ("address", "url") if name in place}
    return {"kind": Kind.MESSAGE, "attachments": (attachment,), "data": {"location": kept} if kept else {}}


def _contacts(message: Json) -> Fields:
    """Read shared contacts, each with its first number; the whole cards are kept."""
    cards = maybe_list(message, "contacts")
    if not cards:
        raise Unreadable("contacts is empty")
    attachments = tuple(
        Attachment(
            kind="contact",
            name=maybe_text(maybe_obj(card, "name"), "formatted_name"),
            phone=next((maybe_text(phone, "phone") for phone in maybe_list(card, "phones")), ""),
        )
        for card in cards
    )
    return {"kind": Kind.MESSAGE, "attachments": attachments, "data": {"contacts": cards}}


def _interactive(message: Json) -> Fields:
    """Read a press of a button, a choice in a list, a filled-in flow, or an answer about calls."""
    answer = obj(message, "interactive")
    kind = text(answer, "type")
    if kind not in INTERACTIVE:
        return {"kind": Kind.UNSUPPORTED, "data": {"content": [f"interactive {kind}"]}}
    payload, words = INTERACTIVE[kind]
    said = obj(answer, kind)
    chosen = text(said, payload)
    kept = {name: said[name] for name in said if name not in ("id", "title", "body", "response_json")}
    return {
        "kind": Kind.BUTTON,
        "text": maybe_text(said, words) or chosen,
        "payload": chosen,
        "data": {kind: kept} if kept else {},
    }


def _button(message: Json) -> Fields:
    """Read a quick reply under a template."""
    button = obj(message, "button")
    payload = text(button, "payload")
    return {"kind": Kind.BUTTON, "text": maybe_text(button, "text") or payload, "payload": payload}


def _reaction(message: Json) -> Fields:
    """Read a reaction. Without an emoji, or with an empty one, it was removed."""
    reaction = obj(message, "reaction")
    emoji = maybe_text(reaction, "emoji")
    return {
        "kind": Kind.REACTION,
        "text": emoji,
        "target": any_id(reaction, "message_id"),
        "data": {"removed": not emoji},
    }


def _order(message: Json) -> Fields:
    order = obj(message, "order")
    return {"kind": Kind.MESSAGE, "text": maybe_text(order, "text"), "data": {"order": order}}


def _edit(message: Json) -> Fields:
    """Read an edit: the new content of an earlier message."""
    edit = obj(message, "edit")
    new = obj(edit, "message")
    content = PLAIN.get(maybe_text(new, "type"), _unsupported)(new)
    return {**content, "kind": Kind.EDIT, "target": any_id(edit, "original_message_id")}


def _revoke(message: Json) -> Fields:
    return {"kind": Kind.DELETE, "target": any_id(obj(message, "revoke"), "original_message_id")}


def _welcome(message: Json) -> Fields:
    """Read that a person opened the chat for the first time, without a word."""
    return {"kind": Kind.FOLLOWED}


def _unsupported(message: Json) -> Fields:
    """Read what WhatsApp or this file does not know. ``data.content`` names it."""
    about = message.get("unsupported")
    named = about.get("type") if isinstance(about, dict) else None
    return {"kind": Kind.UNSUPPORTED, "data": {"content": [str(named or message.get("type"))[:50]]}}


# Interactive answers -> the members that hold its value and its words.
INTERACTIVE: Mapping[str, tuple[str, str]] = {
    "button_reply": ("id", "title"),
    "list_reply": ("id", "title"),
    "nfm_reply": ("response_json", "body"),
    "call_permission_reply": ("response", "response"),
}
# What a person writes, and so may edit.
PLAIN: Mapping[str, Callable[[Json], Fields]] = {
    "text": _text,
    **dict.fromkeys(FILES, _file),
    "location": _location,
    "contacts": _contacts,
}
CONTENT: Mapping[str, Callable[[Json], Fields]] = {
    **PLAIN,
    "interactive": _interactive,
    "button": _button,
    "reaction": _reaction,
    "order": _order,
    "edit": _edit,
    "revoke": _revoke,
    "request_welcome": _welcome,
}
