"""Turns a WhatsApp webhook's updates into entries, statuses and notes. Pure.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks.

A private chat has the id of its person (see ``whatsapp_people``), so that their aliases lead to the
chat, too. A group's chat is ``group:<id>``. The app's webhook serves all of its numbers: what came
to another number than the channel's own says so in ``channel_ref``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from channels_ingest.adapters.meta.envelope import Shape, Update, read_updates
from channels_ingest.adapters.meta.graph import GraphError, as_error, explain
from channels_ingest.adapters.meta.whatsapp_content import read_around, read_content
from channels_ingest.adapters.meta.whatsapp_errors import MEANINGS
from channels_ingest.adapters.meta.whatsapp_people import GROUP, Value, is_phone, read_address
from channels_ingest.adapters.reading import Json, any_id, maybe_text, moment, obj, text, text_id
from channels_ingest.adapters.tables import read_table
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import (
    ChannelConfig,
    Entry,
    Kind,
    Note,
    Parsed,
    Scope,
    Sender,
    StatusUpdate,
    TemplateUpdate,
    Unusable,
    Wish,
)

OBJECT = "whatsapp_business_account"
# Fields that hold nothing a person wrote to us now: only noted, with these words.
FIELDS = read_table(Path(__file__).with_name("whatsapp_fields.csv"))
NOTED = {row["field"]: row["words"] for row in FIELDS}
# Those of them that say something about a template.
TEMPLATE_FIELDS = frozenset(row["field"] for row in FIELDS if row["template"])
SHAPE = Shape(
    lists=("messages", "statuses", "errors", "message_echoes", "user_preferences"),
    unread=NOTED.keys() - TEMPLATE_FIELDS,
)
# Events of a template's status that have another name than the status which follows.
EVENTS = {"reinstated": "approved", "unarchived": "approved"}
# Meta's words for a status -> ours. A voice note that was played was read.
STATUSES = {"sent": "sent", "delivered": "delivered", "read": "read", "played": "read", "failed": "failed"}
# A preference's category and value -> what the person wants.
WISHES = {("marketing_messages", "stop"): Wish.NO_MARKETING, ("marketing_messages", "resume"): Wish.MARKETING}
# System messages that give a person another id.
MOVES = frozenset({"user_changed_number", "user_changed_user_id", "customer_changed_number"})
KEYS = {
    Kind.BUTTON: "b",
    Kind.REACTION: "r",
    Kind.EDIT: "e",
    Kind.DELETE: "x",
    Kind.CHAT_MIGRATED: "g",
    Kind.FOLLOWED: "f",
}
STARTS_TURN = frozenset({Kind.MESSAGE, Kind.BUTTON, Kind.UNSUPPORTED})


def read(channel: ChannelConfig, body: bytes) -> Iterator[Parsed]:
    """Yield what a request holds, in its order. What cannot be read keeps its bytes."""
    value: Value | None = None
    for update in read_updates(body, SHAPE):
        if isinstance(update, Unusable):
            yield update
            continue
        try:
            if update.name and (value is None or value.shared is not update.shared):
                value = Value(update.shared)
            yield _read_one(channel, update, value)
        except Unreadable as error:
            ref = _channel_ref(channel, value) if value is not None and value.shared is update.shared else ""
            yield Unusable(reason=str(error), raw=update.raw, channel_ref=ref)


def _read_one(channel: ChannelConfig, update: Update, value: Value | None) -> Parsed:
    """Read one update. Each yields something, known or not, so that none vanishes."""
    if update.problem:
        raise Unreadable(update.problem)
    if update.object != OBJECT:
        raise Unreadable(f"an event of {update.object[:50] or 'nothing'}, not of WhatsApp")
    if update.field in NOTED:
        return Note(reason=NOTED[update.field], template=_template(update))
    if value is None or not update.name:
        return Note(reason="a change of an unknown field, or without content")
    if (update.field, update.name) not in READERS:
        raise Unreadable(f"{update.name} in the field {update.field[:50]}, which is not known")
    return READERS[update.field, update.name](channel, update, value)


def _message(channel: ChannelConfig, update: Update, value: Value) -> Parsed:
    item, sender = update.item, value.sender(update.item, update.count)
    message_id = text_id(item, "id", "message id")
    if item.get("type") == "system":
        return _system(channel, update, value, sender, message_id)
    content = read_content(item)
    target, around = read_around(item)
    group = any_id(item, "group_id") if item.get("group_id") is not None else ""
    return Entry(
        key=f"{KEYS.get(content['kind'], 'm')}:{message_id}",
        platform_id=message_id,
        starts_turn=content["kind"] in STARTS_TURN,
        sender=sender,
        chat=GROUP + group if group else sender.user,
        group=bool(group),
        address=read_address(sender, group),
        **{"target": target, **content, "data": {**around, **content.get("data", {})}},
        **_base(channel, update, value),
    )


def _system(channel: ChannelConfig, update: Update, value: Value, sender: Sender, message_id: str) -> Parsed:
    """Read that a person has another number, and with it another BSUID.

    Both new ids lead to the person of the old ones, with conversation and state.
    """
    system = obj(update.item, "system")
    if maybe_text(system, "type") not in MOVES:
        return Note(reason="a system message")
    phone = maybe_text(system, "wa_id") or maybe_text(system, "new_wa_id")
    bsuid = maybe_text(system, "user_id")
    new = tuple(each for each in (bsuid, phone) if each)
    if not new:
        raise Unreadable("a change of number without the new one")
    to = phone if is_phone(phone) else ""
    return Entry(
        kind=Kind.CHAT_MIGRATED,
        key=f"{KEYS[Kind.CHAT_MIGRATED]}:{message_id}",
        platform_id=message_id,
        starts_turn=False,
        chat=sender.user,
        sender=msgspec.structs.replace(sender, phone=to),
        new_chat=new[-1],
        new_ids=new,
        address={"to": to or None, "recipient": bsuid or None},
        data={"system": system},
        **_base(channel, update, value),
    )


def _status(channel: ChannelConfig, update: Update, value: Value) -> Parsed:
    """Read what became of a reply. ``biz_opaque_callback_data`` is our key of it."""
    item = update.item
    status = STATUSES.get(text(item, "status"))
    if status is None:
        return Note(reason="a status of an unknown kind")
    errors = item.get("errors")
    error = as_error(errors[0]) if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None
    group = maybe_text(item, "group_id")
    return StatusUpdate(
        platform_id=text_id(item, "id", "message id"),
        status=status,
        chat=GROUP + group if group else maybe_text(item, "recipient_user_id") or maybe_text(item, "recipient_id"),
        key=maybe_text(item, "biz_opaque_callback_data"),
        error=explain(error, MEANINGS) if error else "",
        scope=_scope(error) if status == "failed" else Scope.REPLY,
        channel_ref=_channel_ref(channel, value),
    )


def _scope(error: GraphError | None) -> Scope:
    """Return what a failure concerns."""
    meaning = MEANINGS.get(error.code) if error else None
    return meaning.scope if meaning and meaning.scope else Scope.REPLY


def _fault(channel: ChannelConfig, update: Update, value: Value) -> Parsed:
    """Read a fault of the account that concerns no message."""
    error = as_error(update.item)
    return Note(reason=f"a fault of the account: {explain(error, MEANINGS) if error else 'without a code'}")


def _template(update: Update) -> TemplateUpdate | None:
    """Read what is new of a template; None if the field is about something else, or names none.

    Here its language is written en-US, and in the API en_US.
    """
    value = update.item if update.field in TEMPLATE_FIELDS else {}
    name, language = (maybe_text(value, f"message_template_{word}") for word in ("name", "language"))
    if not name or not language:
        return None
    status = maybe_text(value, "event").lower()
    return TemplateUpdate(
        account=update.account,
        name=name,
        language=language.replace("-", "_"),
        at=update.time,
        status=EVENTS.get(status, status),
        quality=maybe_text(value, "new_quality_score").lower(),
    )


def _preference(channel: ChannelConfig, update: Update, value: Value) -> Parsed:
    """Read that a person stops marketing messages, or takes them again. It is kept in their chat."""
    item = update.item
    sender = value.sender({"from": item.get("wa_id"), "from_user_id": item.get("user_id")}, update.count)
    wanted, category = text(item, "value"), maybe_text(item, "category")
    return Entry(
        kind=Kind.UNSUPPORTED,
        key=f"p:{category}:{wanted}:{_timestamp(item)}",
        starts_turn=False,
        sender=sender,
        chat=sender.user,
        text=maybe_text(item, "detail"),
        address=read_address(sender),
        wish=WISHES.get((category, wanted), ""),
        data={"content": ["user_preferences"], "category": category, "value": wanted},
        **_base(channel, update, value),
    )


READERS: Mapping[tuple[str, str], Callable[[ChannelConfig, Update, Value], Parsed]] = {
    ("messages", "messages"): _message,
    ("messages", "statuses"): _status,
    ("messages", "errors"): _fault,
    ("user_preferences", "user_preferences"): _preference,
}


def _base(channel: ChannelConfig, update: Update, value: Value) -> dict[str, Any]:
    """Return what every entry has: when, to which number, and its own bytes."""
    at = _timestamp(update.item)
    return {"sent_at": moment(at), "order_key": at, "channel_ref": _channel_ref(channel, value), "raw": update.raw}


def _channel_ref(channel: ChannelConfig, value: Value) -> str:
    """Return the number that something came to; '' for the channel's own, or if that is not set."""
    own = str(channel.options.get("phone_number_id") or "")
    return value.phone_number_id if own and value.phone_number_id != own else ""


def _timestamp(item: Json) -> int | None:
    """Return the time in milliseconds. It comes as text in seconds; milliseconds were seen, too."""
    value = str(item.get("timestamp", ""))
    if not (value.isascii() and value.isdigit() and 0 < len(value) < 15):
        return None
    return int(value) if len(value) > 11 else int(value) * 1000
