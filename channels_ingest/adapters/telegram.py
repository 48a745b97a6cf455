"""Telegram Bot API 10. Source: https://core.telegram.org/bots/api and its guides.

One webhook request is one ``Update``. A chat's messages come strictly one after the other; button
presses ride another queue. There is no signature, only a shared token in a header; no idempotency
key for sends; no delivery receipts.

Lanes: ``chat.id``; ``<chat>@<connection>`` for a business account's chat (its message ids are another
numbering) and ``<chat>@guest`` where the bot is no member (only ``answerGuestQuery`` reaches it). A
forum topic is part of the address, not of the lane.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from channels_ingest import http
from channels_ingest.adapters.base import (
    Adapter,
    Option,
    Secret,
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
from channels_ingest.signatures import any_same
from channels_ingest.strict_json import Unreadable, read_object
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Choice,
    Deferred,
    Entry,
    Kind,
    Limit,
    Note,
    OutboundReply,
    Outcome,
    Parsed,
    Rejected,
    Scope,
    Sender,
    Sent,
    Unknown,
    Unusable,
    WebhookRequest,
)

API = "https://api.telegram.org"
TOKEN_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105  (a header's name)
Json = Mapping[str, Any]

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
# Content without text or file that a bot can use: kept in `data` by these names.
PLAIN = ("dice", "poll", "users_shared", "chat_shared", "successful_payment", "passport_data", "checklist")
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

SEND = {
    "image": ("sendPhoto", "photo"),
    "video": ("sendVideo", "video"),
    "audio": ("sendAudio", "audio"),
    "voice": ("sendVoice", "voice"),
    "sticker": ("sendSticker", "sticker"),
    "file": ("sendDocument", "document"),
}
WITHOUT_CAPTION = frozenset({"sticker", "location", "contact"})

# Words of a 400's description (in lower case) that hold for the whole conversation; a 403 always does.
CONVERSATION_ERRORS = (
    "chat not found",
    "user not found",
    "peer_id_invalid",
    "bot was blocked",
    "user is deactivated",
    "bot was kicked",
    "bot is not a member",
    "not enough rights to send text",
    "have no rights to send",
    "chat_write_forbidden",
    "can't initiate conversation",
    "can't send messages to bots",
    "business connection not found",
)


class Unsendable(Exception):
    """A reply that no method of the Bot API can carry."""


class Telegram(Adapter):
    platform = "telegram"
    secrets = (
        Secret(name="token", help="the bot's token from @BotFather"),
        Secret(name="secret_token", help="sent by Telegram with each webhook", rotates=True, generated=True),
    )
    options = (Option(name="username", help="the bot's @name, for groups; register_webhook sets it"),)
    limits = (
        Limit(bucket="channel", count=30, seconds=1),
        Limit(bucket="chat", count=1, seconds=1),
        Limit(bucket="group", count=20, seconds=60),
    )
    # Telegram counts code points; UTF-16 units are never more than that, and entities count them.
    text_size = 4096
    caption_size = 1024
    max_choices = 100
    choice_bytes = 64

    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        return any_same(request.headers.get(TOKEN_HEADER, ""), channel.secrets("secret_token"))

    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        try:
            update = read_object(request.body)
            return list(_read_update(channel, update, int_id(update, "update_id")))
        except Unreadable as error:
            return [Unusable(reason=str(error), raw=request.body)]

    def caption_room(self, media: Attachment) -> int:
        return 0 if media.kind in WITHOUT_CAPTION else self.caption_size

    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        try:
            method, payload = _request(reply)
            answered = _call(channel, method, payload, self.read_timeout_seconds)
        except Unsendable as error:
            return Rejected(reason=str(error))
        except http.CallFailed as failed:
            return failed.outcome
        return _outcome(answered, reply)

    def acknowledge(self, channel: ChannelConfig, entry_data: Json) -> None:
        """Stop the spinner of a pressed button. Too late is no harm: "query is too old"."""
        callback = entry_data.get("callback_query_id")
        if not callback:
            return
        with contextlib.suppress(http.CallFailed):
            _call(channel, "answerCallbackQuery", {"callback_query_id": callback}, read_timeout=5.0)


# ---------------------------------------------------------------- reading an update


def _read_update(channel: ChannelConfig, update: Json, update_id: str) -> Iterator[Parsed]:
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
    addressed = _addressed(channel, message, content["text"], command, command_bot)
    return Entry(
        key=f"m:{message_id}",
        starts_turn=name != "channel_post" and _by_the_person(message) and (addressed or not base["group"]),
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
    base |= {"chat": old, "address": {"chat_id": int(new), "thread": None}}
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
        text="".join(new),
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
    address: dict[str, Any] = {"chat_id": chat["id"], "thread": int(thread) if thread else None}
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


def _by_the_person(message: Json) -> bool:
    """In a business account's chat the account's owner writes too; only the customer starts turns."""
    return "business_connection_id" not in message or maybe_obj(message, "from").get("id") == obj(message, "chat").get(
        "id"
    )


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
        words = text(message, "text") if "text" in message else maybe_text(message, "caption")
        return _said(Kind.MESSAGE, words, attachments=attachments, data={**kept, **data})
    unknown = sorted(message.keys() - ENVELOPE)
    if not unknown:
        raise Unreadable("message without content")
    return _said(Kind.UNSUPPORTED, maybe_text(message, "caption"), data={**kept, "content": unknown[:10]})


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


# ---------------------------------------------------------------- sending


def _request(reply: OutboundReply) -> tuple[str, dict[str, Any]]:
    """Method and parameters. Plain text: no parse_mode, so that nothing that a person wrote is syntax."""
    body, address = reply.body, reply.address
    if address.get("guest_query_id"):
        return _guest_answer(reply, str(address["guest_query_id"]))
    method, content = _media(body.media, body.text) if body.media else ("sendMessage", {"text": body.text})
    payload = {"chat_id": _chat_id(reply), **content}
    if address.get("thread"):
        payload["message_thread_id"] = address["thread"]
    if address.get("business_connection_id"):
        payload["business_connection_id"] = address["business_connection_id"]
    if _is_group(reply) and reply.in_answer_to.isdigit():
        payload["reply_parameters"] = {"message_id": int(reply.in_answer_to), "allow_sending_without_reply": True}
    if body.choices:
        payload["reply_markup"] = _keyboard(body.choices)
    return method, payload


def _media(media: Attachment, caption: str) -> tuple[str, dict[str, Any]]:
    if media.kind == "location":
        return "sendLocation", {"latitude": media.latitude, "longitude": media.longitude}
    if media.kind == "contact":
        return "sendContact", {"phone_number": media.phone, "first_name": media.name or media.phone}
    method, field = SEND.get(media.kind, SEND["file"])
    source = media.file_id or media.url
    if not source:
        raise Unsendable("media has neither file id nor URL")
    return method, {field: source, **({"caption": caption} if caption else {})}


def _guest_answer(reply: OutboundReply, query_id: str) -> tuple[str, dict[str, Any]]:
    """One answer to one guest query: text and buttons. A second one is refused by Telegram."""
    article = {
        "type": "article",
        "id": "1",
        "title": reply.body.text[:64] or "…",
        "input_message_content": {"message_text": reply.body.text},
    }
    if reply.body.choices:
        article["reply_markup"] = _keyboard(reply.body.choices)
    return "answerGuestQuery", {"guest_query_id": query_id, "result": article}


def _keyboard(choices: tuple[Choice, ...]) -> dict[str, Any]:
    """One button a row; the longest id that a button carries is 64 bytes."""
    return {
        "inline_keyboard": [
            [{"text": choice.title or choice.id, "callback_data": choice.short(Telegram.choice_bytes)}]
            for choice in choices
        ]
    }


def _chat_id(reply: OutboundReply) -> int:
    """The lane's chat, which a migration renews, without the lane's suffix."""
    digits = reply.chat.partition("@")[0]
    if not digits.removeprefix("-").isdigit():
        raise Unsendable("chat is no Telegram id")
    return int(digits)


def _is_group(reply: OutboundReply) -> bool:
    return reply.chat.startswith("-")


def _call(channel: ChannelConfig, method: str, payload: Json, read_timeout: float) -> http.Answered:
    base = channel.api_base.rstrip("/") or API
    return http.call(
        "POST",
        f"{base}/bot{channel.credentials.get('token', '')}/{method}",
        headers={"content-type": "application/json"},
        body=msgspec.json.encode(payload),
        read_timeout=read_timeout,
    )


def _outcome(answered: http.Answered, reply: OutboundReply) -> Outcome:
    said = _said_by_telegram(answered)
    if said is None:
        return Unknown(reason="an answer that is not Telegram's") if answered.ok else http.outcome(answered)
    if said.get("ok") is True:
        return Sent(platform_id=_message_id(said.get("result")))
    return _refusal(answered, said, reply)


def _said_by_telegram(answered: http.Answered) -> Json | None:
    try:
        said = read_object(answered.body)
    except Unreadable:
        return None
    return said if isinstance(said.get("ok"), bool) else None


def _message_id(result: Any) -> str:
    result = result if isinstance(result, dict) else {}
    return str(result.get("message_id") or result.get("inline_message_id") or "")


def _refusal(answered: http.Answered, said: Json, reply: OutboundReply) -> Outcome:
    """``description`` decides only between reply and conversation; the rest is in the status."""
    status, words = answered.status, str(said.get("description", ""))
    details = said["parameters"] if isinstance(said.get("parameters"), dict) else {}
    reason = f"{status} {words}"[:200]
    if status == 429:
        return _later(answered, details, reply, reason)
    if type(details.get("migrate_to_chat_id")) is int:
        return Rejected(reason=reason, new_chat=str(details["migrate_to_chat_id"]))
    if status in (401, 404):  # the token is part of the URL: a wrong one is 404
        return Rejected(reason=reason, scope=Scope.CHANNEL)
    if status == 403 or (status == 400 and any(known in words.lower() for known in CONVERSATION_ERRORS)):
        return Rejected(reason=reason, scope=Scope.CONVERSATION)
    return Rejected(reason=reason) if 400 <= status < 500 else http.outcome(answered)


def _later(answered: http.Answered, details: Json, reply: OutboundReply, reason: str) -> Deferred:
    """Telegram doesn't say which of its limits was hit. Its long waits are those of one chat or group, so
    that is what waits: the bot's own limit of 30 a second is kept by us, and if it was hit all the
    same, each chat that tries is told so and waits by itself."""
    told = details.get("retry_after")
    seconds = float(told) if type(told) in (int, float) else http.retry_after(answered)
    return Deferred(seconds=max(seconds, 0.0), bucket="group" if _is_group(reply) else "chat", reason=reason)
