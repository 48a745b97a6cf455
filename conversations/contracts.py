"""The types that the core shares with adapters (one per platform) and with bots.

All of them are immutable data. An adapter turns a webhook's bytes into ``Parsed`` items, and sends
an ``OutboundReply`` with one of five ``Outcome`` endings. The core sees no platform's own format.

Times are aware ``datetime`` in UTC, durations are in seconds. Ids of platforms are text and are
stored byte for byte: two ids that differ only in case are two ids.

More than 350 lines: adapters and bots find all of it in one place, and most of it is docstrings.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of these types: immutable and keyword-only; as JSON without members at their default."""


# ---------------------------------------------------------------- processes


class Work(enum.StrEnum):
    """The kinds of work that a worker process can do.

    The value is used in ``WORKER_ROLE``, in names of Celery queues and in ``worker.kind``.
    ``activity`` names the same kind in keys of Redis locks and in the column ``pause.stops``.
    """

    activity: str

    HANDLE = "handle", "handling"  # turns of bots
    SEND = "send", "sending"  # replies to platforms
    SWEEP = "sweep", "sweeping"  # work that lost its wake or its worker

    def __new__(cls, value: str, activity: str = "") -> Work:
        """Make a member whose value is the first text alone: ``Work("handle")`` finds it."""
        work = str.__new__(cls, value)
        work._value_, work.activity = value, activity
        return work


# ---------------------------------------------------------------- inbound


class Kind(enum.StrEnum):
    """What an inbound entry is. Adapters translate each platform's own names into these."""

    MESSAGE = "message"  # text, media, location, contact, command
    BUTTON = "button"  # a button or list row that we offered was chosen
    EDIT = "edit"  # the text of an earlier message was changed
    DELETE = "delete"  # an earlier message was deleted
    REACTION = "reaction"  # an emoji on a message was set or removed
    JOINED = "joined"  # a person or the bot was added to the chat
    LEFT = "left"  # a person or the bot left the chat
    FOLLOWED = "followed"  # the person opened or unblocked the bot
    BLOCKED = "blocked"  # the person blocked the bot: stop sending
    CHAT_MIGRATED = "chat_migrated"  # the platform gave this chat another id
    CHECKOUT = "checkout"  # the person is about to pay: answered at once, outside the lane
    PAYMENT = "payment"  # money was paid; ``data`` has currency, amount (in its smallest unit), charge_id
    REFUND = "refund"  # money was paid back; ``data`` as above
    TIMER = "timer"  # no platform sends it: a timer of ours is due
    UNSUPPORTED = "unsupported"  # a message of a kind that the adapter cannot read


class Wish(enum.StrEnum):
    """What a person says about our messages to them. ``conversations.reports.wishes`` keeps it."""

    NOTHING = "nothing"  # no message at all: STOP
    ALL = "all"  # messages again: START
    NO_MARKETING = "no_marketing"  # nothing that advertises
    MARKETING = "marketing"  # what advertises again


class Attachment(Struct, frozen=True):
    """A part of a message that is not text.

    ``kind``: image, audio, voice, video, file, sticker, location or contact. ``file_id`` is the
    platform's name of the file, ``url`` its public address; ``size`` is in bytes. ``media`` is the
    id of our copy (``conversations.media``), '' before the message is stored.
    """

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
    media: str = ""


class Names(Struct, frozen=True):
    """What a platform tells of a person; what it does not tell is empty."""

    name: str = ""
    username: str = ""
    phone: str = ""
    email: str = ""
    language: str = ""


class Sender(Names, frozen=True, kw_only=True):
    """The person who wrote an entry, as described by the webhook.

    ``user`` is the platform's id, the most lasting one that the webhook states. ``aliases`` are ids
    that may pass to another person (a WhatsApp number beside a BSUID); one that comes with another
    ``user`` later is that one's. If ``user`` itself is such an id, it is among them.
    """

    user: str
    aliases: tuple[str, ...] = ()


class Entry(Struct, frozen=True):
    """One inbound message or event of one person in one chat, ready to be stored.

    ``key`` identifies it within channel, chat and kind: platforms send a webhook again, and an
    entry whose key is stored already is a duplicate. ``m:<message id>``, ``e:<id>:<edit time>``,
    ``b:<callback id>``; the delivery's own id (``d:<update id>``) only if it has no better one.
    ``starts_turn``: the bot is called for it.
    ``order_key``: sorts messages that come within the channel's settle window (a short wait for
    messages that overtook each other); None: order of arrival.
    ``sequence``: the platform's own number in this conversation, without gaps (generic ``seq``).
    ``address``: what a send needs to reach this chat; merged into the conversation's address. A send
    finds its ``to`` null once that id has passed to another person.
    ``group``: True if more than one person may write in this chat.
    ``channel_ref``: the platform's id of the channel that it is for, where one webhook serves all
    channels of an app; empty: the channel of the webhook's URL.
    ``wish``: one of ``Wish``, where the platform says it; storing recognises STOP and START.
    """

    kind: Kind
    chat: str
    sender: Sender
    key: str
    starts_turn: bool
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    payload: str = ""  # the data of the button that was pressed
    command: str = ""  # "help" of "/help@bot orders"
    args: str = ""  # "orders"
    target: str = ""  # platform id of the message that was edited, answered or pressed
    platform_id: str = ""  # the platform's id of this message
    delivery_id: str = ""  # the platform's id of the webhook's delivery
    thread: str = ""
    group_id: str = ""  # the same for all pictures of one album
    new_chat: str = ""  # chat_migrated: the chat's new id
    new_ids: tuple[str, ...] = ()  # chat_migrated: all new ids of a person who is the chat; the lasting one first
    order_key: int | None = None
    sequence: int | None = None
    sent_at: dt.datetime | None = None
    address: Mapping[str, Any] = {}
    group: bool = False
    channel_ref: str = ""
    wish: str = ""
    data: Mapping[str, Any] = {}  # further values to keep, as JSON
    raw: bytes = b""  # its own bytes, for quarantine, where a request holds many


class StatusUpdate(Struct, frozen=True):
    """A platform's report on one of our replies: ``status`` is sent, delivered, read or failed.

    ``scope``: what a failure concerns, one of ``Scope``. ``channel_ref``: as in ``Entry``.
    """

    platform_id: str
    status: str
    chat: str = ""
    key: str = ""  # our idempotency key, if the platform returns it
    error: str = ""
    scope: str = "reply"
    delivery_id: str = ""
    channel_ref: str = ""


class TemplateUpdate(Struct, frozen=True):
    """A platform's report on a template of an account; without status and quality: it changed.

    ``at``: when, in unix seconds; 0: now.
    """

    account: str
    name: str
    language: str
    at: float = 0.0
    status: str = ""
    quality: str = ""


class Note(Struct, frozen=True):
    """An authentic item that is no message (a ping, an echo of our reply): only counted.

    ``template``: what it reports of a template. It is no kind of item of its own, so that an older
    version that finds it in the spool passes over it.
    """

    reason: str
    delivery_id: str = ""
    template: TemplateUpdate | None = None


class Unusable(Struct, frozen=True):
    """An authentic item that cannot be stored as a message: its bytes are kept for staff.

    ``channel_ref``: as in ``Entry``, where it can be read.
    """

    reason: str
    raw: bytes = b""
    channel_ref: str = ""


Parsed = Entry | StatusUpdate | Note | Unusable


class WebhookRequest(Struct, frozen=True):
    """One HTTP request with its exact body, over which signatures are computed.

    ``headers`` have lower-case names. ``url`` is ``PUBLIC_URL`` + path + query: some platforms sign
    the URL, and behind a router the request names another host. ``query`` is that of a handshake;
    it is empty in a POST.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


class Answer(Struct, frozen=True):
    """The HTTP answer to a webhook."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = {}


class ChannelConfig(Struct, frozen=True):
    """A channel's settings, decrypted and read-only; cached, see ``registry.CHANNEL_SECONDS``.

    ``external_id``: the platform's id of this channel, as ``Entry.channel_ref`` names it.
    ``app_id``: the app to whose other channels its webhooks may bring entries; 0: none.
    ``inherited``: names of those ``credentials`` that are the app's.
    """

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
    external_id: str = ""
    app_id: int = 0
    inherited: tuple[str, ...] = ()

    def with_secrets_of_app(self) -> ChannelConfig:
        """Return the channel with only those credentials that are its app's."""
        kept = {name: value for name, value in self.credentials.items() if name in self.inherited}
        return msgspec.structs.replace(self, credentials=kept)

    def secrets(self, name: str) -> list[str]:
        """Return the current value of a secret and, during a rotation, the previous one."""
        values = (self.credentials.get(name, ""), self.credentials.get(name + "_previous", ""))
        return [value for value in values if value]


# ---------------------------------------------------------------- outbound


class Choice(Struct, frozen=True):
    """A button: its press brings ``id`` back as ``Entry.payload``; ``title`` is its label."""

    id: str
    title: str

    def short(self, limit: int) -> str:
        """Return ``id`` if it has at most ``limit`` bytes (0: no limit), else ``~`` and its digest.

        For platforms that limit a button's data. The press brings the digest back, with the reply's
        id in ``Entry.target``: the digests of that reply's choices tell which one was pressed
        (``conversations.choices``).
        """
        raw = self.id.encode("utf-8", "surrogatepass")
        if not limit or 0 < len(raw) <= limit:
            return self.id
        return "~" + base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


class Invoice(Struct, frozen=True):
    """A request for money that the platform shows with a button to pay.

    ``prices``: label and amount of each item, which may be negative (a discount), in the smallest
    unit of ``currency`` (ISO 4217; ``XTR`` for Telegram's Stars). ``payload``: what tells the bot
    what is paid; people do not see it, and the checkout and the payment bring it back.
    """

    title: str
    description: str
    payload: str
    currency: str
    prices: tuple[tuple[str, int], ...]
    photo_url: str = ""

    @property
    def total(self) -> int:
        """Return what is to be paid, in the smallest unit of the currency."""
        return sum(amount for _, amount in self.prices)

    @property
    def words(self) -> str:
        """Return the invoice as text, for timelines."""
        return f"{self.title}\n{self.description}\n{self.total} {self.currency} (in the smallest unit)"


class FilledTemplate(Struct, frozen=True):
    """A template and its checked values: what a reply stores of it, see ``template_shapes.fill``.

    ``category``: the platform's word in lower case: utility, marketing, authentication. ``header``,
    ``body``: each variable's name ('' where their order counts) and value. ``buttons``: the kind,
    the place among all buttons (from 0) and the value of those that have one.
    """

    name: str
    language: str
    category: str = ""
    media: Attachment | None = None
    header: tuple[tuple[str, str], ...] = ()
    body: tuple[tuple[str, str], ...] = ()
    buttons: tuple[tuple[str, int, str], ...] = ()


class ReplyBody(Struct, frozen=True):
    """The content of one reply. ``text`` is the caption of ``media``, if there is one.

    ``template``: then ``text`` is what the person reads in it, for timelines.

    ``markdown``: the text as the bot wrote it; then ``text`` says the same plainly, for whoever
    cannot render it. ``Adapter.split`` fills it in.
    ``numbered``: the choices stand as numbered lines in ``text``, because the platform has no form
    for them.
    ``invoice`` stands alone: ``text`` is then for timelines only.
    """

    text: str = ""
    markdown: str = ""
    choices: tuple[Choice, ...] = ()
    media: Attachment | None = None
    invoice: Invoice | None = None
    numbered: bool = False
    template: FilledTemplate | None = None

    @property
    def buttons(self) -> tuple[Choice, ...]:
        """Return the choices that the platform is to show; none if they are numbered in the text."""
        return () if self.numbered else self.choices


class OutboundReply(Struct, frozen=True):
    """One attempt to send one reply. ``key``, the idempotency key, is the same in every attempt."""

    key: str
    chat: str
    user: str
    address: Mapping[str, Any]
    body: ReplyBody
    attempt: int = 1
    conversation_id: int = 0
    sequence: int = 0
    in_answer_to: str = ""  # platform id of the message to which it replies
    content: BinaryIO | None = None  # the open file of ``body.media``, where the send itself uploads it


class Scope(enum.StrEnum):
    """What a permanent refusal concerns: this reply, more of the conversation, or all of the channel."""

    REPLY = "reply"
    WINDOW = "window"  # free text, until the person writes: ``Adapter.window_seconds`` are over
    MARKETING = "marketing"  # what advertises: this person does not want it
    CONVERSATION = "conversation"  # everything, until the person writes: they cannot be reached
    CHANNEL = "channel"


class Sent(Struct, frozen=True, tag=True):
    """The platform took the reply. ``platform_id`` is its id there, or empty.

    ``file_id``: the platform's id of a file that this send uploaded.
    """

    platform_id: str = ""
    file_id: str = ""


class Deferred(Struct, frozen=True, tag=True):
    """Not taken: a rate limit (429). Tried again after ``seconds``, without spending an attempt.

    ``bucket``: what the limit holds back, one of channel, chat, group.
    """

    seconds: float
    bucket: str = "channel"
    reason: str = ""


class Failed(Struct, frozen=True, tag=True):
    """Certainly not taken, for a temporary reason (connection refused, 503): safe to send again."""

    reason: str


class Unknown(Struct, frozen=True, tag=True):
    """Maybe taken (timeout or reset after the request was sent, 5xx): a retry may send it twice."""

    reason: str


class Rejected(Struct, frozen=True, tag=True):
    """Refused: the same request would be refused again. ``scope``: what else would be.

    ``new_chat``: the chat's new id, if the platform's answer has one; the reply is sent there.
    """

    reason: str
    scope: Scope = Scope.REPLY
    new_chat: str = ""


Outcome = Sent | Deferred | Failed | Unknown | Rejected


class Fetched(Struct, frozen=True):
    """A file was written whole. The other endings of a fetch are those of a send: ``Rejected`` is final."""


class Uploaded(Struct, frozen=True):
    """The platform has a file, under this id."""

    file_id: str


Fetching = Fetched | Deferred | Failed | Unknown | Rejected
Uploading = Uploaded | Deferred | Failed | Unknown | Rejected


class Limit(Struct, frozen=True):
    """A rate limit: at most ``count`` sends in ``seconds`` per channel, chat or group."""

    bucket: str
    count: int
    seconds: float


# ``key_life`` of a platform that recognises a repeated idempotency key however late.
FOREVER = float("inf")


class Adapter(Protocol):
    """What the core and the webhook view call on a platform's adapter.

    ``channels_ingest.adapters.base`` says what each function does.
    """

    platform: str
    limits: Sequence[Limit]
    channel_noun: str
    channel_ref_option: str
    keeps_files_seconds: float
    window_seconds: float
    opt_out_words: Collection[str]
    opt_in_words: Collection[str]
    reports_key: bool
    reports_delivery: bool
    template_option: str

    def handshake(self, channel: ChannelConfig, request: WebhookRequest) -> Answer | None: ...
    def precheck(self, channel: ChannelConfig, headers: Mapping[str, str]) -> bool: ...
    def verify(self, channel: ChannelConfig, request: WebhookRequest) -> bool: ...
    def parse(self, channel: ChannelConfig, request: WebhookRequest) -> list[Parsed]: ...
    def answer(self, channel: ChannelConfig, request: WebhookRequest) -> Answer: ...
    def fetch(self, channel: ChannelConfig, file: Attachment, into: BinaryIO, most: int) -> Fetching: ...
    def split(self, body: ReplyBody) -> list[ReplyBody]: ...
    def key_life(self, channel: ChannelConfig) -> float: ...
    def upload(self, channel: ChannelConfig, file: Attachment, content: BinaryIO) -> Uploading | None: ...
    def send(self, channel: ChannelConfig, reply: OutboundReply) -> Outcome: ...
    def acknowledge(self, channel: ChannelConfig, entry_data: Mapping[str, Any]) -> None: ...
    def answer_checkout(self, channel: ChannelConfig, entry_data: Mapping[str, Any], refusal: str) -> bool: ...
    def show_typing(self, channel: ChannelConfig, address: Mapping[str, Any], message_id: str) -> float: ...
    def describe_credentials(self) -> Mapping[str, str]: ...
    def check_credential(self, name: str, value: str) -> None: ...
