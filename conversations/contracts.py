"""The words that the core shares with the edge (adapters) and with bots.

Everything here is data: frozen, keyword-only, without behaviour beyond its own
reading. Adapters turn bytes into ``Entry`` and friends, and a reply into one of
five ``Outcome`` endings; the core never sees a platform's own words.

Sizes and units: times are aware ``datetime`` in UTC, durations are seconds,
ids of platforms are text, byte-exact, never normalised.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all borders: immutable, keyword-only, JSON without default values."""


# ---------------------------------------------------------------- processes


class Work(enum.StrEnum):
    """The kinds of work.

    The value names a role (``WORKER_ROLE``), its queues and ``worker.kind``. ``activity`` stands
    for the same kind in the keys of Redis locks and in ``pause.stops``.
    """

    activity: str

    HANDLE = "handle", "handling"  # turns of bots
    SEND = "send", "sending"  # replies to platforms
    SWEEP = "sweep", "sweeping"  # whatever stayed behind

    def __new__(cls, value: str, activity: str = "") -> Work:
        work = str.__new__(cls, value)
        work._value_, work.activity = value, activity
        return work


# ---------------------------------------------------------------- inbound


class Kind(enum.StrEnum):
    """What an inbound entry is, in our words, whatever the platform calls it."""

    MESSAGE = "message"  # text, media, location, contact, command
    BUTTON = "button"  # a button or list row that we offered was chosen
    EDIT = "edit"  # an earlier message now reads otherwise
    DELETE = "delete"  # an earlier message was unsent
    REACTION = "reaction"  # set or removed
    JOINED = "joined"  # somebody, or the bot, came into the chat
    LEFT = "left"
    FOLLOWED = "followed"  # the person opened or unblocked the bot
    BLOCKED = "blocked"  # the person blocked the bot: stop sending
    CHAT_MIGRATED = "chat_migrated"  # the platform gave this chat another id
    TIMER = "timer"  # our own: a timer of the bot is due
    UNSUPPORTED = "unsupported"  # real, but of a kind that we cannot read (yet)


class Attachment(Struct, frozen=True):
    """One thing that is not text. ``kind``: image, audio, voice, video, file, sticker, location, contact."""

    kind: str
    mime_type: str = ""
    file_id: str = ""
    url: str = ""
    name: str = ""
    size: int | None = None
    width: int | None = None
    height: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    phone: str = ""


class Sender(Struct, frozen=True):
    """The person behind an entry, as far as the webhook itself says.

    ``user`` is the platform's id. ``aliases`` are other ids of the same person
    that the platform may use later (a WhatsApp number next to a BSUID).
    """

    user: str
    name: str = ""
    username: str = ""
    phone: str = ""
    email: str = ""
    language: str = ""
    aliases: tuple[str, ...] = ()


class Entry(Struct, frozen=True):
    """One inbound message or event of one person in one chat, ready to be stored.

    ``key`` is what makes it *the same* when it comes again, within channel, chat and
    kind: ``m:<message id>``, ``e:<id>:<edit time>``, ``b:<callback id>``; a
    delivery's own id (``d:<update id>``) only where there is nothing else.
    ``order_key``: place in the platform's order, for channels with a settle window.
    ``sequence``: the platform's own dense number for this conversation (generic ``seq``).
    ``address``: what a send needs to reach this chat, merged into the lane's address.
    ``group``: more than one person may write here.
    ``channel_ref``: the platform's id of another channel of the same app; empty: this one.
    """

    kind: Kind
    chat: str
    sender: Sender
    key: str
    starts_turn: bool
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    payload: str = ""  # a button's own data
    command: str = ""  # "help" of "/help@bot orders"
    args: str = ""  # "orders"
    target: str = ""  # the platform id of the message that this one is about
    platform_id: str = ""  # the platform's id of this message
    delivery_id: str = ""
    thread: str = ""
    group_id: str = ""  # album: parts of one act
    new_chat: str = ""  # chat_migrated: the chat's new id
    order_key: int | None = None
    sequence: int | None = None
    sent_at: dt.datetime | None = None
    address: Mapping[str, Any] = {}
    group: bool = False
    channel_ref: str = ""
    data: Mapping[str, Any] = {}  # anything else worth keeping, JSON


class StatusUpdate(Struct, frozen=True):
    """What the platform says of a reply of ours: ``status`` is sent, delivered, read or failed."""

    platform_id: str
    status: str
    chat: str = ""
    key: str = ""  # our own idempotency key, where the platform gives it back
    error: str = ""
    delivery_id: str = ""


class Note(Struct, frozen=True):
    """Authentic, understood, and nothing to store as a message (a ping, our own echo)."""

    reason: str
    delivery_id: str = ""


class Unusable(Struct, frozen=True):
    """Authentic, but it cannot be stored as a message: quarantined with its own bytes."""

    reason: str
    raw: bytes = b""


Parsed = Entry | StatusUpdate | Note | Unusable


class WebhookRequest(Struct, frozen=True):
    """One HTTP request as it came. ``headers`` have lower-case names; ``url`` is PUBLIC_URL + path + query."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


class Answer(Struct, frozen=True):
    """What a webhook is answered with."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = {}


class ChannelConfig(Struct, frozen=True):
    """A channel as adapters and the core see it: decrypted, read-only, a second old at most."""

    id: int
    public_id: str
    platform: str
    tenant_id: int
    name: str = ""
    bot: str = "echo"
    active: bool = True
    credentials: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    api_base: str = ""

    def secrets(self, name: str) -> list[str]:
        """The current and, during a rotation, the previous value of a secret."""
        values = (self.credentials.get(name, ""), self.credentials.get(name + "_previous", ""))
        return [value for value in values if value]


# ---------------------------------------------------------------- outbound


class Choice(Struct, frozen=True):
    """A button: ``id`` comes back when it is pressed, ``title`` is what the person reads."""

    id: str
    title: str

    def short(self, limit: int) -> str:
        """``id`` where it has at most ``limit`` bytes (0: any), else ``~`` and a digest of it.

        A platform that bounds a button's data gets this. A digest comes back as ``Entry.payload``
        with ``Entry.target`` naming the reply, whose choices tell which one it was.
        """
        raw = self.id.encode("utf-8", "surrogatepass")
        if not limit or 0 < len(raw) <= limit:
            return self.id
        return "~" + base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


class ReplyBody(Struct, frozen=True):
    """What one reply says. ``media`` goes out with ``text`` as its caption where the platform can."""

    text: str = ""
    choices: tuple[Choice, ...] = ()
    media: Attachment | None = None


class OutboundReply(Struct, frozen=True):
    """One attempt to send one reply. ``key`` is the same in every attempt: the idempotency key."""

    key: str
    chat: str
    user: str
    address: Mapping[str, Any]
    body: ReplyBody
    attempt: int = 1
    conversation_id: int = 0
    sequence: int = 0
    in_answer_to: str = ""  # platform id of the message that it answers


class Scope(enum.StrEnum):
    """How far a permanent refusal reaches."""

    REPLY = "reply"
    CONVERSATION = "conversation"
    CHANNEL = "channel"


class Sent(Struct, frozen=True, tag=True):
    """The platform has it. ``platform_id`` may be empty where it gives none."""

    platform_id: str = ""


class Deferred(Struct, frozen=True, tag=True):
    """Not taken, come back later (429): no attempt is spent. ``bucket``: channel, chat, group."""

    seconds: float
    bucket: str = "channel"
    reason: str = ""


class Failed(Struct, frozen=True, tag=True):
    """Surely not taken, for a passing reason (connection refused, 503 before processing)."""

    reason: str


class Unknown(Struct, frozen=True, tag=True):
    """It may or may not have been taken (timeout or reset after the request was written, 5xx)."""

    reason: str


class Rejected(Struct, frozen=True, tag=True):
    """Refused for good. ``new_chat``: the platform named the chat's new id; the reply is tried there."""

    reason: str
    scope: Scope = Scope.REPLY
    new_chat: str = ""


Outcome = Sent | Deferred | Failed | Unknown | Rejected


class Limit(Struct, frozen=True):
    """At most ``count`` sends in ``seconds`` per ``bucket`` (channel, chat, group)."""

    bucket: str
    count: int
    seconds: float


FOREVER = float("inf")


class Adapter(Protocol):
    """What the core and the webhook view need from a platform. See ``channels_ingest.adapters.base``."""

    platform: str
    limits: Sequence[Limit]

    def handshake(self, channel: ChannelConfig, request: WebhookRequest) -> Answer | None: ...
    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool: ...
    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]: ...
    def answer(self, channel: ChannelConfig, request: WebhookRequest) -> Answer: ...
    def split(self, body: ReplyBody) -> list[ReplyBody]: ...
    def key_life(self, channel: ChannelConfig) -> float: ...
    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome: ...
    def acknowledge(self, channel: ChannelConfig, entry_data: Mapping[str, Any]) -> None: ...
