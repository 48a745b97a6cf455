"""The generic channel: any system without an adapter, over Standard Webhooks 1.0.0, both ways.

The contract is ours: ``docs/generic-channel.md`` and its JSON schema. In: one event, or a batch
whose items are accepted or quarantined one by one. Out: ``message.reply`` to ``outbound_url``. Its
``webhook-id`` is the reply's key in every attempt, so that the receiver can drop a duplicate.

More than 350 lines, because an adapter is one class in one file, and this one reads both ways.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from django.conf import settings

from channels_ingest import file_links
from channels_ingest.adapters.base import Adapter, Option, Secret
from channels_ingest.adapters.reading import Json, any_id, bigint, maybe_list, maybe_text, moment, number, obj, text
from channels_ingest.adapters.setting_checks import URL
from channels_ingest.formats.signatures import WHSEC_PATTERN, may_be_signed, sign_webhook, verify_request
from channels_ingest.formats.strict_json import (
    Unreadable,
    read_json,
    read_object,
    refuse_floods,
    split_array,
    split_object,
)
from channels_ingest.outbound import http
from conversations.contracts import (
    FOREVER,
    Attachment,
    ChannelConfig,
    Entry,
    Kind,
    Note,
    OutboundReply,
    Outcome,
    Parsed,
    Rejected,
    Scope,
    Sender,
    StatusUpdate,
    Struct,
    Unusable,
    WebhookRequest,
)

BATCH = "messages.batch"  # the type of a request with many items
# Most items of a batch; a larger batch is quarantined as a whole. Larger: one request takes more
# time and memory. Smaller: senders must split their batches.
MAX_ITEMS = 10_000
# Most tokens (strings, brackets, commas) of these items together: 100 for each, where an ordinary one
# has about 30. Larger: one batch takes more memory. Smaller: batches with many details are quarantined.
MAX_BATCH_TOKENS = 100 * MAX_ITEMS
STATUSES = {
    "message.sent": "sent",
    "message.delivered": "delivered",
    "message.read": "read",
    "message.failed": "failed",
}
ATTACHMENT_KINDS = frozenset({"image", "audio", "voice", "video", "file", "sticker", "location", "contact"})


class Event(Struct, frozen=True):
    """One item of a request, with the facts of its envelope."""

    type: str
    data: Json
    timestamp: Any
    delivery_id: str  # the request's webhook-id
    index: int  # its position in the batch; 0 for a single event


class Generic(Adapter):
    platform = "generic"
    secrets = (
        Secret(
            name="secret",
            help="whsec_ and base64 of 16 bytes or more; signs both directions",
            rotates=True,
            pattern=WHSEC_PATTERN,
        ),
        Secret(
            name="outbound_url",
            help="where replies are posted",
            pattern=URL,
        ),
    )
    options = (
        Option(
            name="key_life_s",
            help="seconds for which the receiver remembers a webhook-id; default for ever",
            pattern="[0-9]{1,10}",
            number=True,
        ),
    )

    statuses = tuple(STATUSES.values())

    def precheck(self, channel: ChannelConfig, headers: Mapping[str, str]) -> bool:
        return may_be_signed(headers)

    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool:
        return verify_request(channel.secrets("secret"), request.headers, request.body)

    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]:
        delivery_id = request.headers.get("webhook-id", "")
        try:
            members = split_object(request.body)
            if read_json(members.get("type", b"null")) == BATCH:
                return list(_read_batch(members, delivery_id))
            event = read_object(request.body)
        except Unreadable as error:
            return [Unusable(reason=str(error), raw=request.body)]
        return [_read_one(event, event.get("timestamp"), delivery_id, 0, request.body)]

    def key_life(self, channel: ChannelConfig) -> float:
        return float(channel.options.get("key_life_s") or FOREVER)

    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome:
        """Post the reply to ``outbound_url``, or to ``api_base`` if the channel has one."""
        url = channel.api_base or channel.credentials.get("outbound_url", "")
        if not url or not channel.secrets("secret"):
            return Rejected(reason="the channel has no outbound_url or no secret", scope=Scope.CHANNEL)
        body = msgspec.json.encode(_event(channel, reply))
        try:
            answered = http.call(
                "POST",
                url,
                headers=signed_headers(channel.credentials["secret"], reply.key, body),
                body=body,
                read_timeout=self.read_timeout_seconds,
            )
        except http.CallFailed as failed:
            return failed.outcome
        # Statuses come back with our key, so the key is also the platform's id of the reply.
        return http.outcome(answered, platform_id=reply.key)

    def sign(self, channel: ChannelConfig, body: bytes) -> dict[str, str]:
        return signed_headers(channel.credentials["secret"], f"msg_{uuid.uuid4().hex}", body)

    def renew(self, body: dict[str, Any]) -> None:
        data = body.get("data")
        items = data.get("messages", [data]) if isinstance(data, dict) else []
        for item in items:
            for name in ("message_id", "event_id", "edit_id"):
                if name in item:
                    item[name] = f"{item[name]}-{uuid.uuid4().hex[:12]}"


def signed_headers(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt: the id is the message's, the time is now."""
    timestamp = str(int(time.time()))
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign_webhook(secret, message_id, timestamp, body),
    }


# ---------------------------------------------------------------- reading


def _read_batch(members: Mapping[str, bytes], delivery_id: str) -> Iterator[Parsed]:
    """Read each item from its own bytes, so that a bad one does not spoil the others."""
    timestamp = read_json(members.get("timestamp", b"null"))
    items = split_object(members.get("data", b"{}")).get("messages", b"null")
    refuse_floods(items, MAX_BATCH_TOKENS)
    for index, raw in enumerate(split_array(items, MAX_ITEMS)):
        try:
            item = read_object(raw)
        except Unreadable as error:
            yield Unusable(reason=f"item {index}: {error}", raw=raw)
            continue
        event = {"type": item.get("type", "message.created"), "data": item}
        thing = _read_one(event, item.get("timestamp", timestamp), delivery_id, index, raw)
        yield msgspec.structs.replace(thing, raw=raw) if isinstance(thing, Entry) else thing


def _read_one(event: Json, timestamp: Any, delivery_id: str, index: int, raw: bytes) -> Parsed:
    """Read one event. A type that we do not know is noted, a bad value quarantined."""
    try:
        kind = maybe_text(event, "type")
        if kind not in READERS:
            return Note(reason="an event of an unknown type", delivery_id=delivery_id)
        data = obj(event, "data")
        if data.get("timestamp") is not None:
            timestamp = data["timestamp"]
        return READERS[kind](Event(type=kind, data=data, timestamp=timestamp, delivery_id=delivery_id, index=index))
    except Unreadable as error:
        return Unusable(reason=str(error), raw=raw)


def _message(event: Event) -> Entry:
    """Read a message. Its text may be missing only beside attachments."""
    data = event.data
    attachments = tuple(map(_attachment, maybe_list(data, "attachments")))
    message_id = any_id(data, "message_id")
    return Entry(
        kind=Kind.MESSAGE,
        key=f"m:{message_id}",
        platform_id=message_id,
        starts_turn=True,
        text=text(data, "text") if "text" in data or not attachments else "",
        attachments=attachments,
        target=any_id(data, "reply_to") if data.get("reply_to") is not None else "",
        sequence=_sequence(data),
        **_base(event),
    )


def _edit(event: Event) -> Entry:
    """Read an edit. Without ``edit_id``, message and time tell one edit from another."""
    message_id = any_id(event.data, "message_id")
    edit_id = any_id(event.data, "edit_id") if "edit_id" in event.data else f"{message_id}:{event.timestamp}"
    attachments = tuple(map(_attachment, maybe_list(event.data, "attachments")))
    return Entry(
        kind=Kind.EDIT,
        key=f"e:{edit_id}",
        platform_id=message_id,
        target=message_id,
        starts_turn=False,
        text=text(event.data, "text"),
        attachments=attachments,
        sequence=_sequence(event.data),
        **_base(event),
    )


def _deletion(event: Event) -> Entry:
    """Read a deletion. A message is deleted once, so its id is enough for the key."""
    message_id = any_id(event.data, "message_id")
    return Entry(
        kind=Kind.DELETE,
        key=f"x:{message_id}",
        target=message_id,
        starts_turn=False,
        sequence=_sequence(event.data),
        **_base(event),
    )


def _button(event: Event) -> Entry:
    """Read a press. Without ``event_id``, request and position in the batch make the key."""
    button = obj(event.data, "button")
    payload, has_id = text(button, "id"), "event_id" in event.data
    return Entry(
        kind=Kind.BUTTON,
        key=f"b:{any_id(event.data, 'event_id')}" if has_id else f"d:{event.delivery_id}:{event.index}",
        starts_turn=True,
        text=maybe_text(button, "title") or payload,
        payload=payload,
        target=any_id(event.data, "message_id") if event.data.get("message_id") is not None else "",
        sequence=_sequence(event.data),
        **_base(event),
    )


def _status(event: Event) -> StatusUpdate:
    """Read what the receiver says of a reply of ours: ``outbound_id`` is the reply's key."""
    outbound_id = any_id(event.data, "outbound_id")
    return StatusUpdate(
        platform_id=outbound_id,
        key=outbound_id,
        status=STATUSES[event.type],
        chat=_chat(event.data) if "chat" in event.data else "",
        error=maybe_text(event.data, "error"),
        delivery_id=event.delivery_id,
    )


READERS: Mapping[str, Callable[[Event], Parsed]] = {
    "message.created": _message,
    "message.updated": _edit,
    "message.deleted": _deletion,
    "button.clicked": _button,
    **dict.fromkeys(STATUSES, _status),
}


def _base(event: Event) -> dict[str, Any]:
    """Return the fields that every entry has: who, where, when."""
    data, chat = event.data, _chat(event.data)
    thread = any_id(data, "thread_id") if data.get("thread_id") is not None else ""
    return {
        "chat": chat,
        "sender": _sender(obj(data, "user")),
        "thread": thread,
        "delivery_id": event.delivery_id,
        "sent_at": moment(event.timestamp),
        "address": {"thread_id": thread or None},
        "group": obj(data, "chat").get("group") is True,
        "data": {"extra": data["extra"]} if isinstance(data.get("extra"), dict) else {},
    }


def _chat(data: Json) -> str:
    return any_id(obj(data, "chat"), "id", "chat id")


def _sender(user: Json) -> Sender:
    return Sender(
        user=any_id(user, "id", "user id"),
        name=maybe_text(user, "name"),
        username=maybe_text(user, "username"),
        phone=maybe_text(user, "phone"),
        email=maybe_text(user, "email"),
        language=maybe_text(user, "language"),
    )


def _sequence(data: Json) -> int | None:
    """Return the producer's own number, which grows by one per chat and user from any base."""
    if data.get("seq") is None:
        return None
    sequence = bigint(data["seq"])
    if sequence is None or sequence < 0:
        raise Unreadable("seq is not a number between 0 and 2^63 - 1")
    return sequence


def _attachment(item: Json) -> Attachment:
    kind = text(item, "kind")
    if kind not in ATTACHMENT_KINDS:
        raise Unreadable("attachment of an unknown kind")
    return Attachment(
        kind=kind,
        mime_type=maybe_text(item, "mime_type"),
        url=maybe_text(item, "url"),
        file_id=maybe_text(item, "file_id"),
        name=maybe_text(item, "name"),
        size=bigint(item.get("size")),
        width=bigint(item.get("width")),
        height=bigint(item.get("height")),
        latitude=number(item, "latitude") if kind == "location" else None,
        longitude=number(item, "longitude") if kind == "location" else None,
        phone=maybe_text(item, "phone"),
    )


# ---------------------------------------------------------------- sending


def _event(channel: ChannelConfig, reply: OutboundReply) -> dict[str, Any]:
    thread = reply.address.get("thread_id")
    return {
        "type": "message.reply",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {
            "outbound_id": reply.key,
            "user": {"id": reply.user},
            "chat": {"id": reply.chat},
            **({"thread_id": thread} if thread else {}),
            "sequence": reply.sequence,
            "in_answer_to": reply.in_answer_to,
            "text": reply.body.text,
            "choices": [{"id": choice.id, "title": choice.title} for choice in reply.body.choices],
            "attachments": [_described(channel, reply.body.media)] if reply.body.media else [],
        },
    }


def _described(channel: ChannelConfig, media: Attachment) -> dict[str, Any]:
    """Return an attachment as the receiver reads it. One of our files has an address that is good for a day."""
    ours = {"url": settings.PUBLIC_URL + file_links.address(channel, media.media)} if media.media else {}
    return {**msgspec.to_builtins(media), **ours}
