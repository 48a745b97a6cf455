"""An adapter's entries as the rows that the statements of a batch read. Pure."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from conversations import crypto, installation
from conversations.contracts import (
    Attachment,
    ChannelConfig,
    Entry,
    Kind,
    Names,
    Note,
    Parsed,
    StatusUpdate,
    WebhookRequest,
)
from conversations.postgres.storable_text import clean_text, clean_tree, storable, storable_tree
from conversations.reports import wishes

# The headers that are stored; others may hold a signature or a token.
KEPT_HEADERS = frozenset(
    {"content-type", "user-agent", "content-length", "webhook-id", "webhook-timestamp", "x-request-id"}
)
# Bytes of an id, at most; an entry with a longer one is quarantined. Two ids share an index entry,
# and Postgres takes 2,704 bytes there: with a larger limit, it could refuse the whole message.
ID_BYTES = 1_000


class ParsedRequest(NamedTuple):
    """One authentic webhook request, and what its adapter read in it.

    ``own_api``: it came through an API of ours. The message holds all of it, so that its body is
    not stored; and a conflict is told to the caller, not to staff. The spool does not keep this.
    """

    channel: ChannelConfig
    parsed: Sequence[Parsed]
    request: WebhookRequest
    own_api: bool = False


class MessageRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry as ``store_messages.sql`` reads it.

    ``ord``: its index in the batch. ``entry``: its index in the request. ``user``: '' if all people
    of a group share one lane. ``identity``, ``content_hash``: hexadecimal; the same identity is the
    same message, and other content under it is a conflict. ``wish`` is for ``apply_wishes.sql``.
    """

    ord: int = -1
    channel_id: int
    chat: str
    user: str
    identity: str
    content_hash: str
    kind: str
    starts_turn: bool
    text: str = ""
    payload: Mapping[str, Any] | None = None
    sender: Mapping[str, Any] | None = None
    platform_id: str = ""
    delivery_id: str = ""
    external_sequence: int | None = None
    order_key: int | None = None
    settle_ms: int = 0
    receipt_id: int = 0
    entry: int = 0
    address: Mapping[str, Any] | None = None
    window_until: str | None = None
    wish: str = ""


class LaneRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lane as ``add_conversations.sql`` and ``lock_lanes.sql`` read it.

    ``may_pass``: ``user`` is an id that may pass to another person, such as a phone number.
    """

    channel_id: int
    chat: str
    user: str
    is_group: bool = False
    may_pass: bool = False


class ContactRow(Names, frozen=True, kw_only=True):
    """A sender as ``add_contacts.sql`` and ``update_contacts.sql`` read it."""

    channel_id: int
    sender_user: str


class AliasRow(msgspec.Struct, frozen=True, kw_only=True):
    """An id of a person or chat as ``add_aliases.sql`` reads it. ``of``: user or chat."""

    channel_id: int
    of: str
    value: str
    known_as: str


class Quarantined(msgspec.Struct, frozen=True):
    """Authentic bytes that are not a message, for staff, as ``quarantine.sql`` reads them."""

    entry: int  # its index in the request
    reason: str
    body: bytes
    fingerprint: bytes  # of index, reason and bytes; a repetition is only counted


class Receipt:
    """One request while it is being stored; shared by its items.

    ``noted``, ``quarantined``: how many of its entries are not messages. ``id`` is 0 until the
    committer's thread gives it one.
    """

    __slots__ = ("body", "channel", "headers", "id", "kept", "noted", "quarantined")

    def __init__(self, channel: ChannelConfig, request: WebhookRequest, keep_body: bool = True) -> None:
        self.id = 0
        self.channel = channel
        self.body = request.body
        self.headers = {name: clean_text(value) for name, value in kept_headers(request).items()}
        self.noted = self.quarantined = 0
        self.kept = not keep_body  # True also once its body is in the table receipt_body


@dataclass(slots=True, eq=False, repr=False)
class StoreItem:
    """What the committer writes for one entry.

    Without ``row`` there is no message to store, only a receipt and quarantined bytes.
    """

    receipt: Receipt
    row: MessageRow | None = None
    lane: LaneRow | None = None
    contact: ContactRow | None = None
    aliases: Sequence[AliasRow] = ()
    moves: Sequence[Mapping[str, Any]] = ()
    quarantine: Sequence[Quarantined] = ()
    raw: bytes = b""


def kept_headers(request: WebhookRequest) -> dict[str, str]:
    """Return the headers that are stored: never a signature or a token."""
    return {name: value for name, value in request.headers.items() if name in KEPT_HEADERS}


def make_items(request: ParsedRequest) -> list[StoreItem]:
    """Return one item per entry, and a last one if something is quarantined.

    Without either, return one item all the same: the receipt must be stored before the answer 2xx.
    """
    channel, parsed = request.channel, request.parsed
    receipt = Receipt(channel, request.request, keep_body=not request.own_api)
    items: list[StoreItem] = []
    quarantine: list[Quarantined] = []
    for place, thing in enumerate(parsed):
        if isinstance(thing, StatusUpdate | Note):
            receipt.noted += 1
            continue
        problem = _find_problem(thing) if isinstance(thing, Entry) else thing.reason
        if isinstance(thing, Entry) and not problem:
            items.append(_make_item(channel, thing, receipt, place))
        else:
            quarantine.append(_make_quarantined(place, problem, thing.raw or receipt.body))
    receipt.quarantined = len(quarantine)
    if any(item.row.external_sequence is not None for item in items if item.row):
        items = _in_given_order(items)
    if quarantine or not items:
        items.append(StoreItem(receipt, quarantine=quarantine))
    return items


def _in_given_order(items: Sequence[StoreItem]) -> list[StoreItem]:
    """Return items of one request with those of each lane in the order of the producer's numbers.

    One without a number stays behind those that came before it. A large request is stored slice by
    slice: a number that comes only with a later slice must not look like a gap, or like a jump.
    """
    keys: dict[int, tuple[int, int]] = {}  # by index: the number, or the greatest before it and 1
    greatest: dict[tuple[str, str] | None, int] = {}  # by lane, which several people of a group may share
    for place, item in enumerate(items):
        lane = (item.row.chat, item.row.user) if item.row else None
        number = item.row.external_sequence if item.row else None
        greatest[lane] = max(greatest.get(lane, -1), -1 if number is None else number)
        keys[place] = (greatest[lane], 1) if number is None else (number, 0)
    return [items[place] for place in sorted(keys, key=keys.__getitem__)]


def as_quarantined(item: StoreItem, reason: str) -> StoreItem:
    """Return an item that quarantines the bytes of ``item`` instead of storing its message."""
    assert item.row is not None
    item.receipt.quarantined += 1
    made = _make_quarantined(item.row.entry, reason, item.raw or item.receipt.body)
    return StoreItem(item.receipt, quarantine=[made])


def _make_quarantined(place: int, reason: str, body: bytes) -> Quarantined:
    """Return the row for an entry. ``place``: its index in the request."""
    reason = clean_text(reason, 500)
    return Quarantined(place, reason, body, crypto.keyed_hash(installation.identity_key(), str(place), reason, body))


def _find_problem(entry: Entry) -> str:
    """Return why an entry can never be stored, or ''.

    Ids are refused and not repaired: a repaired one could be the id of somebody else.
    """
    sender = entry.sender
    indexed = (entry.chat, sender.user, entry.new_chat, *entry.new_ids, *sender.aliases)
    if not all(map(storable, (*indexed, entry.key, entry.platform_id, entry.delivery_id))):
        return "an id holds a NUL or a lone surrogate"
    if any(len(id_.encode()) > ID_BYTES for id_ in indexed):
        return f"an id has more than {ID_BYTES} bytes"
    return ""


def _make_item(channel: ChannelConfig, entry: Entry, receipt: Receipt, place: int) -> StoreItem:
    """Return the message, lane, contact and aliases of an entry that can be stored.

    In a group each person has a lane of their own, unless ``group_lane`` is "chat".
    """
    sender = entry.sender
    is_one_lane = entry.group and channel.options.get("group_lane") == "chat"
    user, may_pass = "" if is_one_lane else sender.user, sender.user in sender.aliases
    lane = LaneRow(channel_id=channel.id, chat=entry.chat, user=user, is_group=entry.group, may_pass=may_pass)
    contact = ContactRow(
        channel_id=channel.id,
        sender_user=sender.user,
        name=clean_text(sender.name, 200),
        username=clean_text(sender.username, 200),
        phone="".join(character for character in sender.phone if character in "0123456789")[:32],
        email=clean_text(sender.email, 320),
        language=clean_text(sender.language, 35),
    )
    row = _make_row(channel, entry, lane, place)
    moves = _moves(channel, entry, row.identity)
    return StoreItem(receipt, row, lane, contact, _aliases(channel, entry), moves, raw=entry.raw)


def _make_row(channel: ChannelConfig, entry: Entry, lane: LaneRow, place: int) -> MessageRow:
    """Return the message. Both hashes are made from the entry as it came, before texts are cleaned.

    A settle window (a wait in which late messages are sorted) needs the platform's order key.
    """
    key, entry = installation.identity_key(), wishes.with_wish(channel, entry)
    settle_ms = int(channel.options.get("settle_ms") or 0) if entry.order_key is not None else 0
    return MessageRow(
        channel_id=channel.id,
        chat=lane.chat,
        user=lane.user,
        identity=crypto.keyed_hash(key, str(channel.id), entry.chat, entry.kind.value, entry.key).hex(),
        content_hash=crypto.keyed_hash(key, entry.kind.value, entry.text, _content_besides_text(entry)).hex(),
        kind=entry.kind.value,
        starts_turn=entry.starts_turn,
        text=clean_text(entry.text),
        payload=_payload(entry),
        sender={"user": entry.sender.user, "name": clean_text(entry.sender.name, 200)} if entry.group else None,
        platform_id=entry.platform_id,
        delivery_id=entry.delivery_id,
        external_sequence=entry.sequence,
        order_key=entry.order_key,
        settle_ms=settle_ms,
        entry=place,
        address=clean_tree(entry.address) or None,
        window_until=wishes.window_until(channel, entry),
        wish=entry.wish,
    )


# Fields of an entry that have a column of their own; the others go into the column payload.
_IN_COLUMNS = frozenset(
    {"kind", "chat", "sender", "key", "starts_turn", "text", "platform_id", "delivery_id", "order_key", "sequence",
     "address", "group", "channel_ref", "raw"}
)  # fmt: skip


def _payload(entry: Entry) -> dict[str, Any] | None:
    """Return the fields that have no column of their own, or None.

    ``replaced`` among them says that Postgres could not store some characters as they came.
    """
    rest = {name: value for name, value in msgspec.to_builtins(entry).items() if name not in _IN_COLUMNS}
    if entry.attachments:
        rest["attachments"] = [{**msgspec.to_builtins(file), **_media(file)} for file in entry.attachments]
    if not storable_tree(rest):
        rest = {**clean_tree(rest), "replaced": True}
    elif not storable(entry.text):
        rest["replaced"] = True
    return rest or None


def _media(file: Attachment) -> dict[str, str]:
    """Return the id under which an attachment's file is kept, if it has one: ``store_messages.sql`` adds its row."""
    is_new = not file.media and (file.file_id or file.url) and file.kind not in ("location", "contact")
    return {"media": str(uuid.uuid4())} if is_new else {}


# The fields of an attachment that make it another one, in the order in which they are hashed. Never
# change it: a message that is stored, and comes again, would be a conflict instead of a duplicate.
_HASHED = ("kind", "mime_type", "file_id", "url", "name", "size", "width", "height", "latitude", "longitude", "phone")


def _content_besides_text(entry: Entry) -> bytes:
    """Return attachments and a button's payload as bytes for the content hash.

    A message with the same identity is a duplicate only if they are the same, too.
    """
    if not entry.attachments and not entry.payload:
        return b""
    told = [", ".join(f"{name}={getattr(file, name)!r}" for name in _HASHED) for file in entry.attachments]
    attachments = "".join(f"Attachment({fields}), " for fields in told)
    attachments = attachments[:-1] if len(told) == 1 else attachments[:-2]  # as Python writes a tuple
    return f"(({attachments}), {entry.payload!r})".encode("utf-8", "surrogatepass")


def _aliases(channel: ChannelConfig, entry: Entry) -> list[AliasRow]:
    """Return other ids that lead to the same lane.

    In a private chat that has the id of its person, an alias of the person is one of the chat, too.
    """
    user = entry.sender.user
    kinds = ("chat", "user") if entry.chat == user else ("user",)
    pairs = itertools.product(entry.sender.aliases, kinds)
    return [AliasRow(channel_id=channel.id, of=of, value=value, known_as=user) for value, of in pairs]


def _moves(channel: ChannelConfig, entry: Entry, identity: str) -> list[dict[str, Any]]:
    """Return the old and new ids of a chat that moved and so keeps its lane, as ``move_ids.sql`` reads them.

    The chat's ids come first, as in ``add_aliases.sql``: two processes lock them in one order.
    """
    new = entry.new_ids or (entry.new_chat,)
    if entry.kind is not Kind.CHAT_MIGRATED or not new[0]:
        return []
    kinds = ("chat", "user") if entry.new_ids else ("chat",)
    ids = [*dict.fromkeys((entry.chat, *(entry.sender.aliases if entry.new_ids else ()), *new))]
    move = {"channel_id": channel.id, "ids": ids, "claimable": len(entry.new_ids) == 1, "identity": identity}
    return [{**move, "of": of} for of in kinds]
