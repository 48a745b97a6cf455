"""What a Telegram ``Update`` says, in our words. Pure. Source: https://core.telegram.org/bots/api#update.

Lanes: ``chat.id``; ``<chat>@<connection>`` for a business account's chat (its message ids are another
numbering) and ``<chat>@guest`` where the bot is no member (only ``answerGuestQuery`` reaches it). A
forum topic is part of the address, not of the lane.

Foreign values are read by the helpers of ``reading``, which raise ``Unreadable``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from channels_ingest.adapters.reading import (
    Json,
    bigint,
    int_id,
    maybe_list,
    maybe_obj,
    maybe_text,
    moment,
    number,
    obj,
    text,
    text_id,
)
from channels_ingest.formats.strict_json import Unreadable
from conversations.contracts import Attachment, ChannelConfig, Entry, Kind, Note, Parsed, Sender

# Update kinds that carry a message of a person, and what they are.
MESSAGES = {
    "message": Kind.MESSAGE,
    "edited_message": Kind.EDIT,
    "channel_post": Kind.MESSAGE,
    "edited_channel_post": Kind.EDIT,
    "business_message": Kind.MESSAGE,
    "edited_business_message": Kind.EDIT,
    "guest_message": Kind.MESSAGE,
}
# Update kinds without a chat and a person to keep them for.
NOTED = {
    "business_connection": "a business account was connected or changed",
    "message_reaction_count": "counts of anonymous reactions",
    "inline_query": "an inline query",
    "chosen_inline_result": "an inline result was chosen",
    "shipping_query": "a shipping query",
    "pre_checkout_query": "a pre-checkout query",
    "purchased_paid_media": "paid media was bought",
    "poll": "a poll changed",
    "poll_answer": "an answer to a poll",
    "chat_boost": "a chat was boosted",
    "removed_chat_boost": "a boost was removed",
}
ALLOWED_UPDATES = (
    *MESSAGES, *NOTED, "deleted_business_messages", "message_reaction", "callback_query",
    "my_chat_member", "chat_member", "chat_join_request",
)  # fmt: skip

# Content of a message -> our kind of attachment. `animation` stands before `document`: it carries both.
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
# Content without text or file that a bot can use, kept in `data` by these names; its member that reads as text.
PLAIN = {
    "dice": "emoji",
    "poll": "question",
    "users_shared": "",
    "chat_shared": "",
    "successful_payment": "invoice_payload",
    "passport_data": "",
    "checklist": "title",
}
# Messages that nobody wrote: ignoring them is a decision.
SERVICE = frozenset({
    "new_chat_title", "new_chat_photo", "delete_chat_photo", "group_chat_created", "supergroup_chat_created",
    "channel_chat_created", "message_auto_delete_timer_changed", "pinned_message", "connected_website",
    "write_access_allowed", "proximity_alert_triggered", "boost_added", "chat_background_set",
    "checklist_tasks_done", "checklist_tasks_added", "direct_message_price_changed", "forum_topic_created",
    "forum_topic_edited", "forum_topic_closed", "forum_topic_reopened", "general_forum_topic_hidden",
    "general_forum_topic_unhidden", "giveaway_created", "giveaway_winners", "giveaway_completed",
    "paid_message_price_changed", "refunded_payment", "gift", "unique_gift", "gift_upgrade_sent",
    "suggested_post_approved", "suggested_post_approval_failed", "suggested_post_declined",
    "suggested_post_paid", "suggested_post_refunded", "video_chat_scheduled", "video_chat_started",
    "video_chat_ended", "video_chat_participants_invited", "chat_owner_left", "chat_owner_changed",
})  # fmt: skip
# What surrounds the content of a message. Anything else in one is content that we don't know yet.
ENVELOPE = frozenset({
    "message_id", "message_thread_id", "direct_messages_topic", "from", "sender_chat", "sender_boost_count",
    "sender_business_bot", "sender_tag", "date", "business_connection_id", "guest_query_id", "chat",
    "forward_origin", "forward_from", "forward_from_chat", "forward_from_message_id", "forward_signature",
    "forward_sender_name", "forward_date", "is_topic_message", "is_automatic_forward", "reply_to_message",
    "external_reply", "quote", "reply_to_story", "reply_to_checklist_task_id", "via_bot", "edit_date",
    "has_protected_content", "is_from_offline", "is_paid_post", "media_group_id", "author_signature",
    "paid_star_count", "entities", "caption", "caption_entities", "link_preview_options", "effect_id",
    "suggested_post_info", "show_caption_above_media", "has_media_spoiler", "reply_markup",
    "guest_bot_caller_user", "guest_bot_caller_chat",
})  # fmt: skip


def read_update(channel: ChannelConfig, update: Json, update_id: str) -> Iterator[Parsed]:
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
    message_id = int_id(message, "message_id")
    if "sender_business_bot" in message or _is_bot(message):
        return Note(reason="a message of a bot", delivery_id=update_id)
    if not SERVICE.isdisjoint(message):
        return Note(reason="a service message", delivery_id=update_id)
    base = {
        "sender": _author(name, message),
        "delivery_id": update_id,
        "platform_id": message_id,
        "sent_at": moment(message.get("date")),
        **_place(obj(message, "chat"), message),
    }
    if MESSAGES[name] is Kind.EDIT:
        return _edit(message, message_id, base)
    if "migrate_to_chat_id" in message or "migrate_from_chat_id" in message:
        return _migration(message, base)
    if "new_chat_members" in message or "left_chat_member" in message:
        return _came_or_went(message, message_id, base)
    return _message(channel, name, message, message_id, base)


def _message(channel: ChannelConfig, name: str, message: Json, message_id: str, base: dict[str, Any]) -> Entry:
    content = _content(message)
    command, command_bot, args = _command(message, content["text"])
    alone = not base["group"] or name == "guest_message"
    return Entry(
        key=f"m:{message_id}",
        starts_turn=_for_the_bot(name, message)
        and (alone or _addressed(channel, message, content["text"], command, command_bot)),
        order_key=bigint(message["message_id"]),
        group_id=maybe_text(message, "media_group_id"),
        target=_replied_to(message),
        command=command,
        args=args,
        **content,
        **base,
    )


def _edit(message: Json, message_id: str, base: dict[str, Any]) -> Entry:
    edited = message.get("edit_date")
    key = f"e:{message_id}:{edited}" if type(edited) is int else f"d:{base['delivery_id']}"
    base["sent_at"] = moment(edited)
    return Entry(key=key, starts_turn=False, target=message_id, **{**_content(message), "kind": Kind.EDIT}, **base)


def _migration(message: Json, base: dict[str, Any]) -> Entry:
    """Said twice, once in each chat: one identity, so that the second is a duplicate."""
    here = base["chat"]
    if "migrate_to_chat_id" in message:
        old, new = here, int_id(message, "migrate_to_chat_id")
    else:
        old, new = int_id(message, "migrate_from_chat_id"), here
    base |= {"chat": old, "address": {"chat": new, "thread": None}}
    return Entry(kind=Kind.CHAT_MIGRATED, key=f"g:{new}", new_chat=new, starts_turn=False, **base)


def _came_or_went(message: Json, message_id: str, base: dict[str, Any]) -> Entry:
    came = maybe_list(message, "new_chat_members")
    people = came or [obj(message, "left_chat_member")]
    return Entry(
        kind=Kind.JOINED if came else Kind.LEFT,
        key=f"m:{message_id}",
        starts_turn=False,
        data={"users": [_person(user) for user in people]},
        **base,
    )


def _read_button(query: Json, update_id: str) -> Iterator[Entry]:
    message, user = maybe_obj(query, "message"), obj(query, "from")
    payload, callback_id = maybe_text(query, "data"), text_id(query, "id", "callback id")
    data = {"callback_query_id": callback_id}
    if "inline_message_id" in query:
        data["inline_message_id"] = text(query, "inline_message_id")
    yield Entry(
        kind=Kind.BUTTON,
        key=f"b:{callback_id}",
        starts_turn=True,
        sender=_sender(user),
        text=_button_title(message, payload) or payload or maybe_text(query, "game_short_name"),
        payload=payload,
        target=int_id(message, "message_id") if message else "",
        delivery_id=update_id,
        data=data,
        # A button of an inline message has no chat: its lane is the person's own chat with the bot.
        **(_place(obj(message, "chat"), message) if message else _place({**user, "type": "private"}, {})),
    )


def _read_reaction(reaction: Json, update_id: str) -> Iterator[Entry]:
    message_id = int_id(reaction, "message_id")
    old, new = _emoji(reaction, "old_reaction"), _emoji(reaction, "new_reaction")
    sender = _sender(obj(reaction, "user")) if "user" in reaction else _chat_sender(obj(reaction, "actor_chat"))
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
        **_place(obj(reaction, "chat"), reaction),
    )


def _read_own_membership(change: Json, update_id: str) -> Iterator[Parsed]:
    """What became of the bot itself: blocked, opened again, added to or thrown out of a group."""
    private = obj(change, "chat").get("type") == "private"
    came, went = (Kind.FOLLOWED, Kind.BLOCKED) if private else (Kind.JOINED, Kind.LEFT)
    yield _membership(change, update_id, _sender(obj(change, "from")), came, went)


def _read_membership(change: Json, update_id: str) -> Iterator[Parsed]:
    """What became of another member of a group."""
    user = obj(obj(change, "new_chat_member"), "user")
    yield _membership(change, update_id, _sender(user), Kind.JOINED, Kind.LEFT)


def _membership(change: Json, update_id: str, sender: Sender, came: Kind, went: Kind) -> Parsed:
    was, now = obj(change, "old_chat_member"), obj(change, "new_chat_member")
    if _is_in(was) == _is_in(now):
        return Note(reason="rights of a member changed", delivery_id=update_id)
    member = int_id(obj(now, "user"), "id", "user id")
    return Entry(
        kind=came if _is_in(now) else went,
        key=f"c:{member}:{change.get('date')}:{text(was, 'status')}:{text(now, 'status')}",
        starts_turn=False,
        sender=sender,
        delivery_id=update_id,
        sent_at=moment(change.get("date")),
        data={"users": [_person(obj(now, "user"))]},
        **_place(obj(change, "chat"), change),
    )


def _read_join_request(request: Json, update_id: str) -> Iterator[Entry]:
    yield Entry(
        kind=Kind.UNSUPPORTED,
        key=f"j:{int_id(obj(request, 'from'), 'id', 'user id')}:{request.get('date')}",
        starts_turn=False,
        sender=_sender(obj(request, "from")),
        text=maybe_text(request, "bio"),
        delivery_id=update_id,
        sent_at=moment(request.get("date")),
        data={"content": ["chat_join_request"]},
        **_place(obj(request, "chat"), request),
    )


def _read_deletions(deletion: Json, update_id: str) -> Iterator[Entry]:
    """A business account's chat is private: its id is the customer's."""
    chat, deleted = obj(deletion, "chat"), deletion.get("message_ids")
    if not isinstance(deleted, list):
        raise Unreadable("message_ids is not a list")
    for message_id in (int_id({"message_id": item}, "message_id") for item in deleted):
        yield Entry(
            kind=Kind.DELETE,
            key=f"x:{message_id}",
            starts_turn=False,
            sender=_sender(chat),
            target=message_id,
            delivery_id=update_id,
            **_place(chat, deletion),
        )


def _read_unknown(name: str, update: Any, update_id: str) -> Parsed:
    """A kind of update newer than this file: kept where there is a chat and a person."""
    if not (isinstance(update, dict) and isinstance(update.get("chat"), dict) and isinstance(update.get("from"), dict)):
        return Note(reason="an update of an unknown kind", delivery_id=update_id)
    return Entry(
        kind=Kind.UNSUPPORTED,
        key=f"d:{update_id}",
        starts_turn=False,
        sender=_sender(update["from"]),
        delivery_id=update_id,
        data={"content": [name]},
        **_place(update["chat"], update),
    )


READERS = {
    "callback_query": _read_button,
    "message_reaction": _read_reaction,
    "my_chat_member": _read_own_membership,
    "chat_member": _read_membership,
    "chat_join_request": _read_join_request,
    "deleted_business_messages": _read_deletions,
}


# ---------------------------------------------------------------- who and where


def _place(chat: Json, message: Json) -> dict[str, Any]:
    """Lane, thread and address. ``thread`` is stated even when it is none: the newest message's counts."""
    lane = int_id(chat, "id", "chat id")
    thread = int_id(message, "message_thread_id") if message.get("is_topic_message") is True else ""
    address: dict[str, Any] = {"chat": lane, "thread": int(thread) if thread else None}
    if message.get("business_connection_id") is not None:
        address["business_connection_id"] = text_id(message, "business_connection_id")
        lane += "@" + address["business_connection_id"]
    elif message.get("guest_query_id") is not None:
        address["guest_query_id"] = text_id(message, "guest_query_id")
        lane += "@guest"
    group = chat.get("type", "private") != "private"
    return {"chat": lane, "thread": thread, "address": address, "group": group}


def _author(name: str, message: Json) -> Sender:
    """``sender_chat`` speaks for anonymous admins and linked channels; ``from`` is then a stand-in."""
    if "sender_chat" in message:
        return _chat_sender(obj(message, "sender_chat"))
    if name.endswith("channel_post"):
        return _chat_sender(obj(message, "chat"))
    return _sender(obj(message, "from"))


def _sender(user: Json) -> Sender:
    return Sender(
        user=int_id(user, "id", "user id"),
        name=_name(user),
        username=maybe_text(user, "username"),
        language=maybe_text(user, "language_code"),
    )


def _chat_sender(chat: Json) -> Sender:
    return Sender(
        user=int_id(chat, "id", "chat id"), name=maybe_text(chat, "title"), username=maybe_text(chat, "username")
    )


def _person(user: Json) -> dict[str, str]:
    return {"id": int_id(user, "id", "user id"), "name": _name(user)}


def _name(user: Json) -> str:
    return " ".join(filter(None, (maybe_text(user, "first_name"), maybe_text(user, "last_name"))))


def _is_bot(message: Json) -> bool:
    return "sender_chat" not in message and maybe_obj(message, "from").get("is_bot") is True


def _is_in(member: Json) -> bool:
    status = text(member, "status")
    return status in ("creator", "administrator", "member") or (
        status == "restricted" and member.get("is_member") is True
    )


def _for_the_bot(name: str, message: Json) -> bool:
    """A channel's posts are for its readers; in a business account's chat the account's owner writes too."""
    if name == "channel_post":
        return False
    author = maybe_obj(message, "from").get("id")
    return "business_connection_id" not in message or author == obj(message, "chat").get("id")


# ---------------------------------------------------------------- what it says


def _content(message: Json) -> dict[str, Any]:
    """Kind, text, attachments, payload and data of a message."""
    attachments = tuple(_attachments(message))
    data = {name: message[name] for name in PLAIN if name in message}
    kept = {name: message[name] for name in ("entities", "caption_entities") if name in message}
    if "web_app_data" in message:
        web = obj(message, "web_app_data")
        return _said(Kind.MESSAGE, maybe_text(web, "button_text"), payload=text(web, "data"))
    if "text" in message or attachments or data:
        return _said(Kind.MESSAGE, _words(message, data), attachments=attachments, data={**kept, **data})
    unknown = sorted(message.keys() - ENVELOPE)
    if not unknown:
        raise Unreadable("message without content")
    return _said(Kind.UNSUPPORTED, maybe_text(message, "caption"), data={**kept, "content": unknown[:10]})


def _words(message: Json, plain: Json) -> str:
    """Text, or caption, or what of a poll or the like reads as text."""
    if "text" in message or not plain:
        return text(message, "text") if "text" in message else maybe_text(message, "caption")
    return next((maybe_text(obj(plain, name), PLAIN[name]) for name in plain if PLAIN[name]), "")


def _said(kind: Kind, words: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "text": words, **more}


def _attachments(message: Json) -> Iterator[Attachment]:
    """At most one: a message carries one thing, some of them twice (a venue's location, an animation's file)."""
    for name in ("photo", *FILES):
        if name in message:
            yield _photo(message) if name == "photo" else _file(name, obj(message, name))
            return
    if "venue" in message or "location" in message:
        yield _location(message)
    elif "contact" in message:
        contact = obj(message, "contact")
        yield Attachment(kind="contact", name=_name(contact), phone=text(contact, "phone_number"))


def _photo(message: Json) -> Attachment:
    """Sizes of one picture: the largest counts."""
    sizes = maybe_list(message, "photo")
    if not sizes:
        raise Unreadable("photo is empty")
    largest = max(sizes, key=lambda size: (bigint(size.get("width")) or 0) * (bigint(size.get("height")) or 0))
    return _file("photo", largest)


def _file(name: str, file: Json) -> Attachment:
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
    venue = maybe_obj(message, "venue")
    location = obj(venue or message, "location")
    return Attachment(
        kind="location",
        name=maybe_text(venue, "title"),
        latitude=number(location, "latitude"),
        longitude=number(location, "longitude"),
    )


def _emoji(reaction: Json, name: str) -> list[str]:
    """An emoji, a custom emoji's id, or the kind of a reaction that is neither (paid)."""
    return [
        maybe_text(item, "emoji") or maybe_text(item, "custom_emoji_id") or maybe_text(item, "type")
        for item in maybe_list(reaction, name)
    ]


def _button_title(message: Json, payload: str) -> str:
    rows = maybe_obj(message, "reply_markup").get("inline_keyboard")
    buttons = (button for row in rows if isinstance(row, list) for button in row) if isinstance(rows, list) else ()
    for button in buttons:
        if isinstance(button, dict) and button.get("callback_data") == payload:
            return maybe_text(button, "text")
    return ""


def _replied_to(message: Json) -> str:
    """The message that this one answers; in a topic every message "answers" the topic's creation."""
    replied = maybe_obj(message, "reply_to_message")
    return int_id(replied, "message_id") if replied and "forum_topic_created" not in replied else ""


COMMAND = re.compile(r"/([A-Za-z0-9_]{1,64})(?:@([A-Za-z0-9_]{1,64}))?(?!\S)")


def _command(message: Json, words: str) -> tuple[str, str, str]:
    """Command, the bot that it names, arguments. The entity decides; old updates have none."""
    found = COMMAND.match(words)
    first = [entity for entity in _entities(message) if entity.get("offset") == 0]
    marked = any(entity.get("type") == "bot_command" for entity in first)
    if not found or ("entities" in message and not marked):
        return "", "", ""
    return found[1], found[2] or "", words[found.end() :].strip()


def _addressed(channel: ChannelConfig, message: Json, words: str, command: str, command_bot: str) -> bool:
    """In a group: a command that names us or nobody, an answer to us, or a mention."""
    username = str(channel.options.get("username", "")).removeprefix("@").lower()
    if command_bot:
        return not username or command_bot.lower() == username
    if command:
        return True
    bot_id = channel.credentials.get("token", "").partition(":")[0]
    author = maybe_obj(maybe_obj(message, "reply_to_message"), "from").get("id")
    if _replied_to(message) and str(author) == bot_id:
        return True
    return any(_mentions(entity, words, username, bot_id) for entity in _entities(message))


def _mentions(entity: Json, words: str, username: str, bot_id: str) -> bool:
    if entity.get("type") == "text_mention":
        return str(maybe_obj(entity, "user").get("id")) == bot_id
    return entity.get("type") == "mention" and bool(username) and _marked(entity, words).lower() == "@" + username


def _marked(entity: Json, words: str) -> str:
    """The words under an entity; its offsets count UTF-16 units."""
    start, length = bigint(entity.get("offset")) or 0, bigint(entity.get("length")) or 0
    units = words.encode("utf-16-le", "surrogatepass")
    return units[2 * max(start, 0) : 2 * max(start + length, 0)].decode("utf-16-le", "replace")


def _entities(message: Json) -> list[Json]:
    return maybe_list(message, "entities") or maybe_list(message, "caption_entities")
