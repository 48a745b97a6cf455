"""The Telegram Bot API 10.3. Source: https://core.telegram.org/bots/api and its guides.

A webhook request carries one ``Update`` (see ``updates.read_update``). Telegram sends a chat's
messages one after the other, but button presses in a queue of their own. It signs nothing: a shared
token in a header proves who calls. Sends have no idempotency key and no delivery receipts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import msgspec

from channels_ingest.adapters.base import Adapter, Form, Option, Secret, Unsendable
from channels_ingest.adapters.reading import Json, int_id
from channels_ingest.adapters.telegram import api, payments
from channels_ingest.adapters.telegram.content import ephemeral_id
from channels_ingest.adapters.telegram.updates import ALLOWED_UPDATES, MESSAGES, read_update
from channels_ingest.formats.markdown import telegram as dialect
from channels_ingest.formats.markdown.reading import read
from channels_ingest.formats.markdown.runs import Runs
from channels_ingest.formats.signatures import any_same
from channels_ingest.formats.strict_json import Unreadable, read_object
from channels_ingest.outbound import http
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Choice,
    Fetching,
    Invoice,
    Limit,
    OutboundReply,
    Outcome,
    Parsed,
    Rejected,
    ReplyBody,
    Sent,
    Unusable,
    WebhookRequest,
)

TOKEN_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105  (a header's name)

# Our kind of attachment -> method and parameter of the Bot API. Other kinds go as a document.
SEND = {
    "image": ("sendPhoto", "photo"),
    "video": ("sendVideo", "video"),
    "audio": ("sendAudio", "audio"),
    "voice": ("sendVoice", "voice"),
    "sticker": ("sendSticker", "sticker"),
    "file": ("sendDocument", "document"),
}
# What an address of ours may name -> the parameter of a send.
PLACES = {
    "thread": "message_thread_id",
    "direct_topic": "direct_messages_topic_id",
    "business_connection_id": "business_connection_id",
}
# Seconds for which Telegram lets an ephemeral message be quoted (15), less the time of a call.
EPHEMERAL_SECONDS = 13.0
# Media that take no caption: their text goes ahead as a message of its own.
WITHOUT_CAPTION = frozenset({"sticker", "location", "contact"})


class Telegram(Adapter):
    platform = "telegram"
    secrets = (
        Secret(name="token", help="the bot's token from @BotFather, digits:letters", pattern=r"\d+:\S+"),
        Secret(
            name="secret_token",
            help="22 to 256 of A-Z a-z 0-9 _ -, random; sent by Telegram with each webhook",
            rotates=True,
            generated=True,
            pattern="[A-Za-z0-9_-]{1,256}",
            random=True,
        ),
        Secret(
            name="provider_token",
            help="the payment provider's, from @BotFather > Payments; for invoices in other currencies than Stars",
            required=False,
        ),
    )
    options = (
        Option(
            name="username", help="the bot's @name, for groups; register_webhook sets it", pattern="@?[A-Za-z0-9_]+"
        ),
    )
    limits = (
        Limit(bucket="channel", count=30, seconds=1),
        Limit(bucket="chat", count=1, seconds=1),
        Limit(bucket="group", count=20, seconds=60),
    )
    # Telegram's limit counts code points. We count UTF-16 units, which are never fewer.
    text_size = 4096
    caption_size = 1024
    shows_typing = True
    keeps_files_seconds = 365 * 24 * 3600.0  # Telegram names no end
    # The width of a phone shows about 40 characters of a button.
    forms = (Form(name="buttons", most=100, title_size=40, value_bytes=64),)

    def precheck(self, channel: ChannelConfig, headers: Mapping[str, str]) -> bool:
        """Compare the token in the header: Telegram signs nothing."""
        return any_same(headers.get(TOKEN_HEADER, ""), channel.secrets("secret_token"))

    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        return self.precheck(channel, request.headers)

    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        try:
            update = read_object(request.body)
            return list(read_update(channel, update, int_id(update, "update_id")))
        except Unreadable as error:
            return [Unusable(reason=str(error), raw=request.body)]

    def fetch(self, channel: ChannelConfig, file: Attachment, into: BinaryIO, most: int) -> Fetching:
        return api.download(channel, file.file_id, into, most)

    def render(self, runs: Runs) -> str:
        return dialect.text(runs)

    def check_invoice(self, invoice: Invoice) -> None:
        payments.check(invoice)

    def caption_room(self, media: Attachment) -> int:
        return 0 if media.kind in WITHOUT_CAPTION else self.caption_size

    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        """Call one method of the Bot API. A chat id below 0 is a group, with a limit of its own."""
        file = reply.body.media if reply.content is not None else None
        try:
            method, payload = _request(channel, reply)
            answered = api.call(channel, method, payload, self.read_timeout_seconds, file, reply.content)
        except Unsendable as error:
            return Rejected(reason=str(error))
        except http.CallFailed as failed:
            return failed.outcome
        ending = api.outcome(answered, "group" if str(payload.get("chat_id", "")).startswith("-") else "chat")
        if file is None or not isinstance(ending, Sent):
            return ending
        return msgspec.structs.replace(ending, file_id=api.file_id(answered))

    def acknowledge(self, channel: ChannelConfig, entry_data: Json) -> None:
        """Stop the spinner of a pressed button.

        An answer that comes too late is refused, which does no harm.
        """
        callback = entry_data.get("callback_query_id")
        if not callback:
            return
        with contextlib.suppress(http.CallFailed):
            api.call(channel, "answerCallbackQuery", {"callback_query_id": callback}, read_timeout=5.0)

    def answer_checkout(self, channel: ChannelConfig, entry_data: Json, refusal: str) -> bool:
        return payments.answer(channel, str(entry_data["pre_checkout_query_id"]), refusal)

    def show_typing(self, channel: ChannelConfig, address: Json, message_id: str) -> float:
        """Show "typing" for 5 seconds. Telegram has no read marks for bots."""
        chat = {
            "chat_id": address.get("chat"),
            "message_thread_id": address.get("thread"),
            "business_connection_id": address.get("business_connection_id"),
            "action": "typing",
        }
        if not chat["chat_id"] or address.get("guest_query_id"):
            return 0.0
        with contextlib.suppress(http.CallFailed):
            known = {name: value for name, value in chat.items() if value}
            if api.call(channel, "sendChatAction", known, read_timeout=5.0).ok:
                return 5.0
        return 0.0

    def register(self, channel: ChannelConfig, url: str) -> dict[str, Any]:
        """Call ``setWebhook`` for all kinds of updates. Keep the bot's name, which groups need."""
        webhook = {
            "url": url,
            "secret_token": channel.credentials.get("secret_token", ""),
            "allowed_updates": ALLOWED_UPDATES,
        }
        me = api.set_up(channel, "getMe", {})
        api.set_up(channel, "setWebhook", webhook)
        info = api.set_up(channel, "getWebhookInfo", {})
        return {"options": {"username": str(me.get("username", ""))}, "webhook": info}

    def sign(self, channel: ChannelConfig, body: bytes) -> dict[str, str]:
        return {"content-type": "application/json", TOKEN_HEADER: channel.credentials["secret_token"]}

    def renew(self, body: dict[str, Any]) -> None:
        body["update_id"] = fresh = time.time_ns() // 1000
        for name, update in body.items():
            if name in MESSAGES and isinstance(update, dict):
                update["message_id"] = fresh
            elif name == "callback_query" and isinstance(update, dict):
                update["id"] = str(fresh)


# ---------------------------------------------------------------- sending


def _request(channel: ChannelConfig, reply: OutboundReply) -> tuple[str, dict[str, Any]]:
    """Return method and parameters of a send.

    Markdown goes as entities: without ``parse_mode``, a person's words are never read as markup. A
    guest query, from a chat where the bot is no member, is answered by a method of its own, without
    a chat id.
    """
    body, address = reply.body, reply.address
    if address.get("guest_query_id") and body.invoice is None:
        return _guest_answer(reply, str(address["guest_query_id"]))
    if body.invoice:
        method, content = payments.request(channel, body.invoice, address)
    elif body.media:
        attached = {"file_id": api.ATTACHED} if reply.content is not None else {}
        method, content = _media(msgspec.structs.replace(body.media, **attached), body)
    else:
        method, content = "sendMessage", _marked(body, "text", "entities")
    payload: dict[str, Any] = {"chat_id": _chat_id(reply), **content}
    payload |= {name: address[known] for known, name in PLACES.items() if address.get(known)}
    if payload["chat_id"] < 0:
        payload |= _answering(reply)
    if body.buttons:
        payload["reply_markup"] = _keyboard(body.buttons)
    return method, payload


def _answering(reply: OutboundReply) -> dict[str, Any]:
    """Return the parameters by which a reply in a group quotes the message that it answers.

    What answers an ephemeral message must be ephemeral, too: only its person may see it. It can be
    quoted for 15 seconds. Raises ``Unsendable`` where the lane does not say who that is.
    """
    if reply.in_answer_to.isdigit():
        return {"reply_parameters": {"message_id": int(reply.in_answer_to), "allow_sending_without_reply": True}}
    ephemeral = ephemeral_id(reply.in_answer_to)
    if ephemeral is None:
        return {}
    if not reply.user.isdigit():
        raise Unsendable("an ephemeral message is answered to its person alone, and the group has one lane for all")
    message_id, sent_at = ephemeral
    is_fresh = time.time() - sent_at < EPHEMERAL_SECONDS
    quoted = {"reply_parameters": {"ephemeral_message_id": message_id}} if is_fresh else {}
    return {"receiver_user_id": int(reply.user), **quoted}


def _marked(body: ReplyBody, text: str, entities: str) -> dict[str, Any]:
    """Return the text and its entities, under their names in a method."""
    if not body.markdown:
        return {text: body.text}
    runs = read(body.markdown)
    return {text: dialect.text(runs), entities: dialect.entities(runs)}


def _media(media: Attachment, body: ReplyBody) -> tuple[str, dict[str, Any]]:
    """Return method and parameters for media. Raises ``Unsendable`` without file id and URL."""
    if media.kind == "location":
        return "sendLocation", {"latitude": media.latitude, "longitude": media.longitude}
    if media.kind == "contact":
        return "sendContact", {"phone_number": media.phone, "first_name": media.name or media.phone}
    method, field = SEND.get(media.kind, SEND["file"])
    source = media.file_id or media.url
    if not source:
        raise Unsendable("media has neither file id nor URL")
    caption = _marked(body, "caption", "caption_entities")
    return method, {field: source, **(caption if caption["caption"] else {})}


def _guest_answer(reply: OutboundReply, query_id: str) -> tuple[str, dict[str, Any]]:
    """Answer a guest query by text and buttons. Telegram takes one answer and refuses a second."""
    article = {
        "type": "article",
        "id": "1",
        "title": reply.body.text[:64] or "…",
        "input_message_content": _marked(reply.body, "message_text", "entities"),
    }
    if reply.body.buttons:
        article["reply_markup"] = _keyboard(reply.body.buttons)
    return "answerGuestQuery", {"guest_query_id": query_id, "result": article}


def _keyboard(choices: tuple[Choice, ...]) -> dict[str, Any]:
    """Place one button in each row."""
    (form,) = Telegram.forms
    return {
        "inline_keyboard": [
            [{"text": choice.title or choice.id, "callback_data": choice.short(form.value_bytes)}] for choice in choices
        ]
    }


def _chat_id(reply: OutboundReply) -> int:
    """Return the chat to send to.

    After a group's move to another id, the address has the new id; ``reply.chat`` keeps the old
    one.
    """
    try:
        return int(reply.address.get("chat") or reply.chat.partition("@")[0])
    except ValueError:
        raise Unsendable("chat is no Telegram id") from None
