"""Who wrote a Telegram update, and where: sender, chat, address. Pure.

``Entry.chat`` is ``chat.id``. It is ``<chat>@<connection>`` in a business account's chat, which
numbers its messages by itself, and ``<chat>@guest`` where the bot is no member and only
``answerGuestQuery`` reaches the person. A forum topic is part of the address, not of the chat.
"""

from __future__ import annotations

from typing import Any

from channels_ingest.adapters.reading import Json, int_id, maybe_obj, maybe_text, obj, text, text_id
from channels_ingest.adapters.telegram.content import full_name
from conversations.contracts import Sender


def chat_fields(chat: Json, message: Json) -> dict[str, Any]:
    """Return the fields of an ``Entry`` that say where it happened.

    The address is merged into the conversation's address. It names the thread even when there is
    none, because None must replace the thread of an earlier message. The topic of a channel's
    direct messages is the person's own and stays.
    """
    chat_id = int_id(chat, "id", "chat id")
    thread = int_id(message, "message_thread_id") if message.get("is_topic_message") is True else ""
    address: dict[str, Any] = {"chat": chat_id, "thread": int(thread) if thread else None}
    if message.get("business_connection_id") is not None:
        address["business_connection_id"] = text_id(message, "business_connection_id")
        chat_id += "@" + address["business_connection_id"]
    elif message.get("guest_query_id") is not None:
        address["guest_query_id"] = text_id(message, "guest_query_id")
        chat_id += "@guest"
    if message.get("direct_messages_topic") is not None:
        address["direct_topic"] = int(int_id(obj(message, "direct_messages_topic"), "topic_id"))
    group = chat.get("type", "private") != "private"
    return {"chat": chat_id, "thread": thread, "address": address, "group": group}


def own_chat(user: Json) -> dict[str, Any]:
    """Return the same fields for a person's private chat with the bot."""
    return chat_fields({**user, "type": "private"}, {})


def author(name: str, message: Json) -> Sender:
    """Return the author of the message in the update's member ``name``.

    With ``sender_chat`` (anonymous admin, linked channel), ``from`` is a placeholder. A channel
    post may have no ``from``: its author is the channel.
    """
    if "sender_chat" in message:
        return chat_sender(obj(message, "sender_chat"))
    if name.endswith("channel_post"):
        return chat_sender(obj(message, "chat"))
    return sender(obj(message, "from"))


def sender(user: Json) -> Sender:
    return Sender(
        user=int_id(user, "id", "user id"),
        name=full_name(user),
        username=maybe_text(user, "username"),
        language=maybe_text(user, "language_code"),
    )


def chat_sender(chat: Json) -> Sender:
    """Return a chat (a channel, a group) as the sender."""
    return Sender(
        user=int_id(chat, "id", "chat id"), name=maybe_text(chat, "title"), username=maybe_text(chat, "username")
    )


def person(user: Json) -> dict[str, str]:
    """Return what ``Entry.data`` keeps of a user."""
    return {"id": int_id(user, "id", "user id"), "name": full_name(user)}


def is_bot(message: Json) -> bool:
    """Return True if a bot wrote it. Beside ``sender_chat``, ``from`` is a placeholder."""
    return "sender_chat" not in message and maybe_obj(message, "from").get("is_bot") is True


def is_member(member: Json) -> bool:
    """Return True if a member is in the chat. A restricted one may have left it."""
    status = text(member, "status")
    return status in ("creator", "administrator", "member") or (
        status == "restricted" and member.get("is_member") is True
    )


def for_the_bot(name: str, message: Json) -> bool:
    """Return True unless it is a channel's post or the owner of a business account wrote it."""
    if name == "channel_post":
        return False
    author_id = maybe_obj(message, "from").get("id")
    return "business_connection_id" not in message or author_id == obj(message, "chat").get("id")
