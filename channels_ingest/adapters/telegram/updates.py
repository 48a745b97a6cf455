"""Turns a Telegram ``Update`` into entries. Pure.

Source: https://core.telegram.org/bots/api#update.

The readers raise ``Unreadable`` for a value that is missing or of a wrong type.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from channels_ingest.adapters.reading import (
    Json,
    bigint,
    int_id,
    maybe_list,
    maybe_obj,
    maybe_text,
    moment,
    obj,
    text,
    text_id,
)
from channels_ingest.adapters.tables import read_table
from channels_ingest.adapters.telegram import people
from channels_ingest.adapters.telegram.content import (
    SERVICE,
    button_title,
    ephemeral_id,
    is_addressed,
    message_key,
    quoted_key,
    read_command,
    read_content,
    read_emoji,
    replied_to,
)
from channels_ingest.adapters.telegram.payments import payment_key, read_checkout
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import ChannelConfig, Entry, Kind, Note, Parsed, Sender

# Kinds of updates that carry a person's message -> our kind.
MESSAGES = {
    "message": Kind.MESSAGE,
    "edited_message": Kind.EDIT,
    "channel_post": Kind.MESSAGE,
    "edited_channel_post": Kind.EDIT,
    "business_message": Kind.MESSAGE,
    "edited_business_message": Kind.EDIT,
    "guest_message": Kind.MESSAGE,
}
# Kinds of updates that have no chat or no person: only noted, with these words.
NOTED = {row["update"]: row["words"] for row in read_table(Path(__file__).with_suffix(".csv"))}
# Kinds of updates that ``register`` asks for: Telegram sends some of them only if they are named.
ALLOWED_UPDATES = (
    *MESSAGES, *NOTED, "deleted_business_messages", "message_reaction", "callback_query", "pre_checkout_query",
    "my_chat_member", "chat_member", "chat_join_request",
)  # fmt: skip


def read_update(channel: ChannelConfig, update: Json, update_id: str) -> Iterator[Parsed]:
    """Yield what an update says. Telegram sends one member beside ``update_id``.

    Each member yields something, known or not, so that no update vanishes without a trace.
    """
    for name in update:
        if name in MESSAGES:
            yield _read_message(channel, name, obj(update, name), update_id)
        elif name in READERS:
            yield from READERS[name](obj(update, name), update_id)
        elif name in NOTED:
            yield Note(reason=NOTED[name], delivery_id=update_id)
        elif name != "update_id":
            yield _read_unknown(name, update[name], update_id)
    if len(update) == 1:
        yield Note(reason="an update without content", delivery_id=update_id)


def _read_message(channel: ChannelConfig, name: str, message: Json, update_id: str) -> Parsed:
    """Read the message in the update's member ``name``.

    Messages of bots are only noted: two bots could answer each other without end. One that says
    that money moved is about the person whose chat it is.
    """
    message_id = message_key(message, update_id)
    payment, by_bot = payment_key(message), people.is_bot(message)
    if "sender_business_bot" in message or (by_bot and not payment):
        return Note(reason="a message of a bot", delivery_id=update_id)
    if not SERVICE.isdisjoint(message):
        return Note(reason="a service message", delivery_id=update_id)
    base = {
        "sender": people.sender(obj(message, "chat")) if by_bot else people.author(name, message),
        "delivery_id": update_id,
        "platform_id": message_id,
        "sent_at": moment(message.get("date")),
        **people.chat_fields(obj(message, "chat"), message),
    }
    if MESSAGES[name] is Kind.EDIT:
        return _edit(message, message_id, base)
    if "migrate_to_chat_id" in message or "migrate_from_chat_id" in message:
        return _migration(message, base)
    if "new_chat_members" in message or "left_chat_member" in message:
        return _joined_or_left(message, message_id, base)
    return _message(channel, name, message, message_id, base)


def _message(channel: ChannelConfig, name: str, message: Json, message_id: str, base: dict[str, Any]) -> Entry:
    """Read a person's message. In a group it starts a turn only if it is for the bot.

    In a channel's direct messages each topic is one person's, who writes to the channel and so to
    the bot; with ``sender_chat`` the channel itself answers. An ephemeral message has the id 0, so
    it has no place in the order.
    """
    content = read_content(message)
    command, command_bot, args = read_command(message, content["text"])
    is_topic = "direct_messages_topic" in message and "sender_chat" not in message
    payment = payment_key(message)
    direct = not base["group"] or name == "guest_message" or is_topic or payment
    return Entry(
        key=payment or f"m:{message_id}",
        starts_turn=people.for_the_bot(name, message)
        and bool(direct or is_addressed(channel, message, content["text"], command, command_bot)),
        order_key=bigint(message["message_id"]) or None,
        group_id=maybe_text(message, "media_group_id"),
        target=replied_to(message),
        command=command,
        args=args,
        **content,
        **base,
    )


def _edit(message: Json, message_id: str, base: dict[str, Any]) -> Entry:
    """Read an edit. Without ``edit_date``, the update's id tells one edit from another."""
    edit_date = message.get("edit_date")
    key = f"e:{message_id}:{edit_date}" if type(edit_date) is int else f"d:{base['delivery_id']}"
    base["sent_at"] = moment(edit_date)
    return Entry(key=key, starts_turn=False, target=message_id, **{**read_content(message), "kind": Kind.EDIT}, **base)


def _migration(message: Json, base: dict[str, Any]) -> Entry:
    """Read a group's move to another chat id.

    Telegram reports it in both chats. The key is the same, so that the second is a duplicate.
    """
    here = base["chat"]
    if "migrate_to_chat_id" in message:
        old, new = here, int_id(message, "migrate_to_chat_id")
    else:
        old, new = int_id(message, "migrate_from_chat_id"), here
    base |= {"chat": old, "address": {"chat": new, "thread": None}}
    return Entry(kind=Kind.CHAT_MIGRATED, key=f"g:{new}", new_chat=new, starts_turn=False, **base)


def _joined_or_left(message: Json, message_id: str, base: dict[str, Any]) -> Entry:
    """Read who joined a group or left it."""
    joined = maybe_list(message, "new_chat_members")
    members = joined or [obj(message, "left_chat_member")]
    return Entry(
        kind=Kind.JOINED if joined else Kind.LEFT,
        key=f"m:{message_id}",
        starts_turn=False,
        data={"users": [people.person(user) for user in members]},
        **base,
    )


def _read_button(query: Json, update_id: str) -> Iterator[Entry]:
    """Read a press of a button. ``acknowledge`` needs the callback's id to stop the spinner.

    Under an ephemeral message the press has that one's key, so that the reply is ephemeral, too.
    """
    message, user = maybe_obj(query, "message"), obj(query, "from")
    target = quoted_key(message)
    payload, callback_id = maybe_text(query, "data"), text_id(query, "id", "callback id")
    data = {"callback_query_id": callback_id}
    if "inline_message_id" in query:
        data["inline_message_id"] = text(query, "inline_message_id")
    yield Entry(
        kind=Kind.BUTTON,
        key=f"b:{callback_id}",
        starts_turn=True,
        sender=people.sender(user),
        text=button_title(message, payload) or payload or maybe_text(query, "game_short_name"),
        payload=payload,
        target=target,
        platform_id=target if ephemeral_id(target) else "",
        delivery_id=update_id,
        data=data,
        # A button of an inline message has no chat: it goes to the person's private chat with the
        # bot.
        **(people.chat_fields(obj(message, "chat"), message) if message else people.own_chat(user)),
    )


def _read_checkout(query: Json, update_id: str) -> Iterator[Entry]:
    """Read the question whether a payment may go on. It names no chat: the person's own with the bot."""
    user = obj(query, "from")
    asked = {**read_checkout(query), **people.own_chat(user)}
    yield Entry(starts_turn=False, sender=people.sender(user), delivery_id=update_id, **asked)


def _read_reaction(reaction: Json, update_id: str) -> Iterator[Entry]:
    """Read a change of reactions.

    It has no id, so message, person, time and both states make its key.
    """
    message_id = int_id(reaction, "message_id")
    old, new = read_emoji(reaction, "old_reaction"), read_emoji(reaction, "new_reaction")
    by_person = "user" in reaction
    sender = people.sender(obj(reaction, "user")) if by_person else people.chat_sender(obj(reaction, "actor_chat"))
    yield Entry(
        kind=Kind.REACTION,
        key=f"r:{message_id}:{sender.user}:{reaction.get('date')}:{' '.join(old)}:{' '.join(new)}",
        starts_turn=False,
        sender=sender,
        text=" ".join(new),
        target=message_id,
        delivery_id=update_id,
        sent_at=moment(reaction.get("date")),
        data={"old": old, "new": new, "removed": not new},
        **people.chat_fields(obj(reaction, "chat"), reaction),
    )


def _read_own_membership(change: Json, update_id: str) -> Iterator[Parsed]:
    """Read a change of the bot itself: blocked, unblocked, added to a group or removed from it."""
    private = obj(change, "chat").get("type") == "private"
    kind_if_in, kind_if_out = (Kind.FOLLOWED, Kind.BLOCKED) if private else (Kind.JOINED, Kind.LEFT)
    yield _membership(change, update_id, people.sender(obj(change, "from")), kind_if_in, kind_if_out)


def _read_membership(change: Json, update_id: str) -> Iterator[Parsed]:
    """Read a change of another member of a group."""
    user = obj(obj(change, "new_chat_member"), "user")
    yield _membership(change, update_id, people.sender(user), Kind.JOINED, Kind.LEFT)


def _membership(change: Json, update_id: str, sender: Sender, kind_if_in: Kind, kind_if_out: Kind) -> Parsed:
    """Return the entry of a change from out to in, or back. Other changes are only noted."""
    old, new = obj(change, "old_chat_member"), obj(change, "new_chat_member")
    if people.is_member(old) == people.is_member(new):
        return Note(reason="rights of a member changed", delivery_id=update_id)
    member = int_id(obj(new, "user"), "id", "user id")
    return Entry(
        kind=kind_if_in if people.is_member(new) else kind_if_out,
        key=f"c:{member}:{change.get('date')}:{text(old, 'status')}:{text(new, 'status')}",
        starts_turn=False,
        sender=sender,
        delivery_id=update_id,
        sent_at=moment(change.get("date")),
        data={"users": [people.person(obj(new, "user"))]},
        **people.chat_fields(obj(change, "chat"), change),
    )


def _read_join_request(request: Json, update_id: str) -> Iterator[Entry]:
    """Read a request to join a group. We have no kind for it, so it is UNSUPPORTED."""
    yield Entry(
        kind=Kind.UNSUPPORTED,
        key=f"j:{int_id(obj(request, 'from'), 'id', 'user id')}:{request.get('date')}",
        starts_turn=False,
        sender=people.sender(obj(request, "from")),
        text=maybe_text(request, "bio"),
        delivery_id=update_id,
        sent_at=moment(request.get("date")),
        data={"content": ["chat_join_request"]},
        **people.chat_fields(obj(request, "chat"), request),
    )


def _read_deletions(deletion: Json, update_id: str) -> Iterator[Entry]:
    """Read deletions in a business account's chat, an entry for each message.

    The update names no sender. The chat is private and has the customer's id, so the customer is
    recorded, whoever deleted.
    """
    chat, deleted = obj(deletion, "chat"), deletion.get("message_ids")
    if not isinstance(deleted, list):
        raise Unreadable("message_ids is not a list")
    for message_id in (int_id({"message_id": item}, "message_id") for item in deleted):
        yield Entry(
            kind=Kind.DELETE,
            key=f"x:{message_id}",
            starts_turn=False,
            sender=people.sender(chat),
            target=message_id,
            delivery_id=update_id,
            **people.chat_fields(chat, deletion),
        )


def _read_unknown(name: str, update: Any, update_id: str) -> Parsed:
    """Keep an update of a kind newer than this file, if it has a chat and a person."""
    if not (isinstance(update, dict) and isinstance(update.get("chat"), dict) and isinstance(update.get("from"), dict)):
        return Note(reason="an update of an unknown kind", delivery_id=update_id)
    return Entry(
        kind=Kind.UNSUPPORTED,
        key=f"d:{update_id}",
        starts_turn=False,
        sender=people.sender(update["from"]),
        delivery_id=update_id,
        data={"content": [name]},
        **people.chat_fields(update["chat"], update),
    )


READERS = {
    "callback_query": _read_button,
    "pre_checkout_query": _read_checkout,
    "message_reaction": _read_reaction,
    "my_chat_member": _read_own_membership,
    "chat_member": _read_membership,
    "chat_join_request": _read_join_request,
    "deleted_business_messages": _read_deletions,
}
