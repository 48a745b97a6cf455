"""A reply as WhatsApp's JSON. Pure.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages.

Choices become up to 3 buttons; longer titles, or more of them, become the rows of a list. A person
is named by phone number (``to``, with + or Meta puts the business's own country code before it) or
by BSUID (``recipient``): a BSUID in ``to`` is answered 200 and reaches nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from channels_ingest.adapters.base import Form, Unsendable
from channels_ingest.adapters.meta.whatsapp_files import location_object, media_object
from channels_ingest.adapters.meta.whatsapp_people import GROUP, is_phone
from channels_ingest.adapters.meta.whatsapp_templates import template_object
from channels_ingest.formats import text as cut
from conversations.contracts import Attachment, Choice, OutboundReply, ReplyBody

ROW_TITLE = 24
ROW_DESCRIPTION = 72
CHOICE_BYTES = 200  # of a row's id; a button's may have 256
# A row's title may go on in its description. 84 characters fit wherever the title is cut, for a
# title is at least half full.
FORMS = (
    Form(
        name="buttons",
        most=3,
        title_size=20,
        value_bytes=CHOICE_BYTES,
        text_size=1024,
        beside=frozenset({"image", "video", "file"}),
    ),
    Form(name="list", most=10, title_size=84, value_bytes=CHOICE_BYTES, beside=frozenset()),
)
# Our kind of attachment -> the type of WhatsApp's message. Other kinds go as a document.
MEDIA = {
    "image": "image",
    "video": "video",
    "audio": "audio",
    "voice": "audio",
    "sticker": "sticker",
    "file": "document",
}
WITH_CAPTION = frozenset({"image", "video", "document"})
CALLBACK_SIZE = 512  # characters of ``biz_opaque_callback_data``


def message(reply: OutboundReply, list_button: str) -> dict[str, Any]:
    """Return the body of a send. A status brings our key back in ``biz_opaque_callback_data``.

    In a group the reply quotes the message that it answers. Raises ``Unsendable``.
    """
    quoted = {"context": {"message_id": reply.in_answer_to}} if _group(reply) and reply.in_answer_to else {}
    return {
        "messaging_product": "whatsapp",
        **_recipient(reply),
        **_content(reply.body, list_button),
        **quoted,
        "biz_opaque_callback_data": reply.key[:CALLBACK_SIZE],
    }


def as_seen(message_id: str) -> dict[str, Any]:
    """Return the body that marks a message as read and shows that we type, for 25 s at most."""
    return {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": message_id,
        "typing_indicator": {"type": "text"},
    }


def _recipient(reply: OutboundReply) -> dict[str, str]:
    """Return whom the message goes to. With a number and a BSUID, Meta takes the number.

    Raises ``Unsendable`` if the only number that we knew belongs to somebody else by now.
    """
    if _group(reply):
        return {"recipient_type": "group", "to": _group(reply)}
    phone = str(reply.address.get("to") or "").removeprefix("+")
    bsuid = str(reply.address.get("recipient") or "")
    if not phone and not bsuid:
        if "to" in reply.address:
            raise Unsendable("the person's number is somebody else's by now, and we know no user id")
        phone, bsuid = (reply.chat, "") if is_phone(reply.chat) else ("", reply.chat)
    to = {"to": f"+{phone}"} if is_phone(phone) else {"recipient": bsuid or phone}
    return {"recipient_type": "individual", **to}


def _group(reply: OutboundReply) -> str:
    """Return the id of the group that the reply goes to; '' for a person."""
    group = reply.chat[len(GROUP) :] if reply.chat.startswith(GROUP) else ""
    return str(reply.address.get("group") or group)


def _content(body: ReplyBody, list_button: str) -> dict[str, Any]:
    """Return type and content of a message."""
    if body.template:
        return {"type": "template", "template": template_object(body.template)}
    if body.buttons:
        return {"type": "interactive", "interactive": _interactive(body, list_button)}
    if body.media is None:
        return {"type": "text", "text": {"body": body.text, "preview_url": False}}
    if body.media.kind == "location":
        return {"type": "location", "location": location_object(body.media)}
    if body.media.kind == "contact":
        return {"type": "contacts", "contacts": [_contact(body.media)]}
    kind = MEDIA.get(body.media.kind, "document")
    file = media_object(body.media, kind)
    if body.text and kind in WITH_CAPTION:
        file["caption"] = body.text
    if body.media.kind == "voice":
        file["voice"] = True
    return {"type": kind, kind: file}


def _interactive(body: ReplyBody, list_button: str) -> dict[str, Any]:
    """Return choices with their text, which WhatsApp wants to be there."""
    content: dict[str, Any] = {"body": {"text": body.text or "…"}}
    if not _are_buttons(body.buttons):
        rows = [_row(choice) for choice in body.buttons]
        return {"type": "list", **content, "action": {"button": list_button, "sections": [{"rows": rows}]}}
    if body.media:
        kind = MEDIA.get(body.media.kind, "document")
        content["header"] = {"type": kind, kind: media_object(body.media, kind)}
    buttons = [{"type": "reply", "reply": {"id": _id(choice), "title": _title(choice)}} for choice in body.buttons]
    return {"type": "button", **content, "action": {"buttons": buttons}}


def _are_buttons(choices: Sequence[Choice]) -> bool:
    """Return True if choices fit on buttons. Otherwise they are the rows of a list."""
    form = FORMS[0]
    return len(choices) <= form.most and all(cut.fits(_title(choice), form.title_size) for choice in choices)


def _row(choice: Choice) -> dict[str, str]:
    """Return a row. What of its title is too long for a title becomes the description."""
    first, *rest = cut.split(_title(choice), ROW_TITLE)
    more = "".join(rest)
    described = {"description": cut.split(more, ROW_DESCRIPTION)[0].strip()} if more else {}
    return {"id": _id(choice), "title": first.strip(), **described}


def _id(choice: Choice) -> str:
    return choice.short(CHOICE_BYTES)


def _title(choice: Choice) -> str:
    return choice.title or choice.id


def _contact(card: Attachment) -> dict[str, Any]:
    name = card.name or card.phone
    return {"name": {"formatted_name": name, "first_name": name}, "phones": [{"phone": card.phone}]}
