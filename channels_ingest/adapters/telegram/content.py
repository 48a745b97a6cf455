"""Reads what a Telegram ``Message`` says: kind, words, attachments, command, and what it answers.

Pure. Source: https://core.telegram.org/bots/api#message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from channels_ingest.adapters.reading import Json, bigint, int_id, maybe_list, maybe_obj, maybe_text, number, obj, text
from channels_ingest.adapters.tables import read_table
from channels_ingest.adapters.telegram.payments import read_payment
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import Attachment, ChannelConfig, Kind

# Content -> our kind of attachment. ``animation`` comes before ``document``: an animation has both.
FILES = {
    "animation": "video",
    "audio": "audio",
    "document": "file",
    "sticker": "sticker",
    "video": "video",
    "video_note": "video",
    "voice": "voice",
}
MIME_TYPES = {"animation": "video/mp4", "video_note": "video/mp4", "voice": "audio/ogg", "photo": "image/jpeg"}
# Content that is neither text nor a file -> the member that reads as text, if any. All of it is
# kept in ``data`` under its own name.
PLAIN = {
    "dice": "emoji",
    "poll": "question",
    "users_shared": "",
    "chat_shared": "",
    "passport_data": "",
    "checklist": "title",
    "rich_message": "",
}
# Members of a rich message that hold words, in reading order -> what separates the items of a list.
RICH_WORDS = {
    "summary": "",
    "text": "",
    "expression": "",
    "alternative_text": "",
    "blocks": "\n",
    "items": "\n",
    "cells": "\n",
    "caption": "",
    "credit": "",
}
MEMBERS = {row["member"]: row["of"] for row in read_table(Path(__file__).with_suffix(".csv"))}
# Members that surround the content. Any other member is content of a kind that this file does not
# know.
ENVELOPE = frozenset(name for name, of in MEMBERS.items() if of == "envelope")
# Service messages: nobody wrote them, so they are noted and start no turn.
SERVICE = MEMBERS.keys() - ENVELOPE
# A command, perhaps with a bot's name (/help@bot), that ends at white space or the text's end.
COMMAND = re.compile(r"/([A-Za-z0-9_]{1,64})(?:@([A-Za-z0-9_]{1,64}))?(?!\S)")


def read_content(message: Json) -> dict[str, Any]:
    """Return kind, text, attachments, payload and data of an ``Entry``, as far as there are any.

    Content of a kind that this file does not know becomes UNSUPPORTED, with the names of its
    members (ten at most). No content at all is ``Unreadable``.
    """
    payment = read_payment(message)
    if payment is not None:
        return payment
    attachments = tuple(_attachments(message))
    data = {name: message[name] for name in PLAIN if name in message}
    kept = {name: message[name] for name in ("entities", "caption_entities") if name in message}
    if "web_app_data" in message:
        web = obj(message, "web_app_data")
        return {"kind": Kind.MESSAGE, "text": maybe_text(web, "button_text"), "payload": text(web, "data")}
    if "text" in message or attachments or data:
        words = _words(message, data)
        return {"kind": Kind.MESSAGE, "text": words, "attachments": attachments, "data": {**kept, **data}}
    unknown = sorted(message.keys() - ENVELOPE)
    if not unknown:
        raise Unreadable("message without content")
    caption = maybe_text(message, "caption")
    return {"kind": Kind.UNSUPPORTED, "text": caption, "data": {**kept, "content": unknown[:10]}}


def read_command(message: Json, words: str) -> tuple[str, str, str]:
    """Return command, named bot and arguments; '' each if there is no command.

    Telegram marks a command by an entity. Old updates have no ``entities``: there the text decides.
    """
    found = COMMAND.match(words)
    first = [entity for entity in _entities(message) if entity.get("offset") == 0]
    marked = any(entity.get("type") == "bot_command" for entity in first)
    if not found or ("entities" in message and not marked):
        return "", "", ""
    return found[1], found[2] or "", words[found.end() :].strip()


def is_addressed(channel: ChannelConfig, message: Json, words: str, command: str, command_bot: str) -> bool:
    """Return True if a group's message is for our bot.

    That is a command that names our bot or no bot, an answer to our bot, or a mention of it.
    """
    username = str(channel.options.get("username", "")).removeprefix("@").lower()
    if command_bot:
        return not username or command_bot.lower() == username
    if command:
        return True
    bot_id = channel.credentials.get("token", "").partition(":")[0]
    author = maybe_obj(maybe_obj(message, "reply_to_message"), "from").get("id")
    if replied_to(message) and str(author) == bot_id:
        return True
    return any(_mentions(entity, words, username, bot_id) for entity in _entities(message))


def message_key(message: Json, otherwise: str = "") -> str:
    """Return an id of a message that is unique in its chat.

    Telegram gives every ephemeral message the ``message_id`` 0. Its own id is used again after the
    message is deleted, so the time is part of the key. ``otherwise`` stands for the own id where
    there is none (a message that the server scheduled).
    """
    message_id = int_id(message, "message_id")
    if message_id != "0":
        return message_id
    if "ephemeral_message_id" not in message:
        return f"0.{otherwise}"
    return f"0.{int_id(message, 'ephemeral_message_id')}.{int_id(message, 'date')}"


def ephemeral_id(key: str) -> tuple[int, int] | None:
    """Return an ephemeral message's own id and its time from its ``message_key``; None for others."""
    parts = key.split(".")
    return (int(parts[1]), int(parts[2])) if len(parts) == 3 and parts[0] == "0" else None


def quoted_key(message: Json) -> str:
    """Return the key of a message that an update only refers to; '' if it has none.

    What is wrong with the quoted message must not keep the update itself from its bot.
    """
    try:
        key = message_key(message)
    except Unreadable:
        return ""
    return key if key != "0." else ""


def replied_to(message: Json) -> str:
    """Return the key of the answered message; '' if there is none.

    In a topic every message formally answers the topic's creation, which does not count.
    """
    replied = maybe_obj(message, "reply_to_message")
    return quoted_key(replied) if "forum_topic_created" not in replied else ""


def button_title(message: Json, payload: str) -> str:
    """Return the words on the inline button that carries ``payload``; '' if there is none.

    A press names only the payload, so the words are looked up in the message with the buttons.
    """
    rows = maybe_obj(message, "reply_markup").get("inline_keyboard")
    buttons = (button for row in rows if isinstance(row, list) for button in row) if isinstance(rows, list) else ()
    for button in buttons:
        if isinstance(button, dict) and button.get("callback_data") == payload:
            return maybe_text(button, "text")
    return ""


def read_emoji(reaction: Json, name: str) -> list[str]:
    """Return each reaction as its emoji, its custom emoji's id, or its type (a paid reaction)."""
    return [
        maybe_text(item, "emoji") or maybe_text(item, "custom_emoji_id") or maybe_text(item, "type")
        for item in maybe_list(reaction, name)
    ]


def full_name(user: Json) -> str:
    """Return first and last name, as far as given."""
    return " ".join(filter(None, (maybe_text(user, "first_name"), maybe_text(user, "last_name"))))


# ---------------------------------------------------------------- words


def _words(message: Json, plain: Json) -> str:
    """Return the words of a message, from the first place that has any.

    These are its text, its rich message, the caption, or what reads as text in ``plain``.
    """
    if "text" in message:
        return text(message, "text")
    if "rich_message" in message:
        return _rich_words(obj(message, "rich_message")) or maybe_text(message, "caption")
    if not plain:
        return maybe_text(message, "caption")
    return next((maybe_text(obj(plain, name), PLAIN[name]) for name in plain if PLAIN[name]), "")


def _rich_words(value: Any, between: str = "") -> str:
    """Return a rich message as plain text.

    Each block, list item and table row becomes a line; `` | `` stands between cells.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return between.join(filter(None, (_rich_words(item, " | " if between else "") for item in value)))
    if not isinstance(value, dict):
        return ""
    label = value["label"] + " " if isinstance(value.get("label"), str) else ""
    parts = (_rich_words(value[name], between) for name, between in RICH_WORDS.items() if name in value)
    return label + "\n".join(filter(None, parts))


def _mentions(entity: Json, words: str, username: str, bot_id: str) -> bool:
    """Return True if an entity mentions our bot, by its id or its @name."""
    if entity.get("type") == "text_mention":
        return str(maybe_obj(entity, "user").get("id")) == bot_id
    return entity.get("type") == "mention" and bool(username) and _marked(entity, words).lower() == "@" + username


def _marked(entity: Json, words: str) -> str:
    """Return the words that an entity marks. Offset and length count UTF-16 units."""
    start, length = bigint(entity.get("offset")) or 0, bigint(entity.get("length")) or 0
    units = words.encode("utf-16-le", "surrogatepass")
    return units[2 * max(start, 0) : 2 * max(start + length, 0)].decode("utf-16-le", "replace")


def _entities(message: Json) -> list[Json]:
    """Return the entities of the text, or else of the caption."""
    return maybe_list(message, "entities") or maybe_list(message, "caption_entities")


# ---------------------------------------------------------------- attachments


def _attachments(message: Json) -> Iterator[Attachment]:
    """Yield one attachment at most.

    A message carries only one, though some in two forms (a venue is also a location).
    """
    for name in ("photo", *FILES):
        if name in message:
            yield _photo(message) if name == "photo" else _file(name, obj(message, name))
            return
    if "venue" in message or "location" in message:
        yield _location(message)
    elif "contact" in message:
        contact = obj(message, "contact")
        yield Attachment(kind="contact", name=full_name(contact), phone=text(contact, "phone_number"))


def _photo(message: Json) -> Attachment:
    """Return a photo's largest size as an attachment."""
    sizes = maybe_list(message, "photo")
    if not sizes:
        raise Unreadable("photo is empty")
    largest = max(sizes, key=lambda size: (bigint(size.get("width")) or 0) * (bigint(size.get("height")) or 0))
    return _file("photo", largest)


def _file(name: str, file: Json) -> Attachment:
    """Return a file as an attachment, without its content."""
    return Attachment(
        kind=FILES.get(name, "image"),
        mime_type=maybe_text(file, "mime_type") or MIME_TYPES.get(name, ""),
        file_id=text(file, "file_id"),
        name=maybe_text(file, "file_name"),
        size=bigint(file.get("file_size")),
        width=bigint(file.get("width")),
        height=bigint(file.get("height")),
    )


def _location(message: Json) -> Attachment:
    """Return a place as an attachment; a venue gives it a name."""
    venue = maybe_obj(message, "venue")
    location = obj(venue or message, "location")
    return Attachment(
        kind="location",
        name=maybe_text(venue, "title"),
        latitude=number(location, "latitude"),
        longitude=number(location, "longitude"),
    )
