"""Store and number: dedupe, give numbers, COMMIT, then wake.

``accept`` returns only after its own COMMIT. One committer per web process takes whatever requests
are ready and stores them in one transaction; see ``sql/lock_lanes.sql`` and ``sql/store_messages.sql``.

**Invariant:** a request is answered 2xx only after everything in it is stored, set aside or knowingly noted.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
import structlog

from conversations import committer, crypto, database, installation, statuses, wake
from conversations.clean import clean_text, clean_tree, storable, storable_tree
from conversations.contracts import ChannelConfig, Entry, Kind, Note, Parsed, StatusUpdate, Unusable, WebhookRequest
from conversations.errors import NotStored
from conversations.failpoints import failpoint
from conversations.sqlfiles import sql

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 2.5
KEPT_HEADERS = frozenset({"content-type", "user-agent", "content-length", "webhook-id", "webhook-timestamp", "x-request-id"})
REMEMBERED = 100_000  # lanes and contacts that this process has seen stored
BLOCK = 1000  # receipt ids per trip, see receipt_block in sql/schema.sql


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry as ``store_messages.sql`` reads it; ``ord`` is its place in the batch."""

    ord: int = -1
    channel_id: int
    chat: str
    user: str
    sender_user: str
    is_group: bool = False
    aliased: bool = False
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


class Lane(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What finds a row's lane, or makes it."""

    channel_id: int
    chat: str
    user: str
    sender_user: str
    is_group: bool = False
    aliased: bool = False


class Person(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the webhook itself says of its sender."""

    channel_id: int
    sender_user: str
    name: str = ""
    username: str = ""
    phone: str = ""
    email: str = ""
    language: str = ""


class Receipt:
    """One request while it is being stored."""

    __slots__ = ("body", "channel", "headers", "id", "noted", "quarantined")

    def __init__(self, channel: ChannelConfig, request: WebhookRequest) -> None:
        self.id = 0  # given by the committer
        self.channel = channel
        self.body = request.body
        self.headers = {name: value for name, value in request.headers.items() if name in KEPT_HEADERS}
        self.noted = self.quarantined = 0


class Item:
    """What the committer writes for one entry of a request; without ``row``: what is set aside, and the receipt."""

    __slots__ = ("aliases", "aside", "lane", "person", "receipt", "row")

    def __init__(
        self,
        receipt: Receipt,
        row: Row | None = None,
        lane: Lane | None = None,
        person: Person | None = None,
        aliases: Sequence[Mapping[str, Any]] = (),
        aside: Sequence[tuple[int, str, bytes]] = (),
    ) -> None:
        self.receipt, self.row, self.lane, self.person, self.aliases = receipt, row, lane, person, aliases
        self.aside = aside  # (entry, reason, bytes)


# ---------------------------------------------------------------- accepting one request


def accept(channel: ChannelConfig, parsed: Sequence[Parsed], request: WebhookRequest) -> None:
    """Store everything that ``parsed`` holds; return after COMMIT.

    Raises ``Busy`` when the queue is full and ``NotStored`` when it could not be stored within
    ``ANSWER_SECONDS``: the caller answers 503 and the platform comes again.
    """
    failpoint("W1")
    receipt = Receipt(channel, request)
    items = _items(channel, parsed, receipt)
    verdicts = _store(items, len(request.body))
    conflicts = [_conflict(item) for item, verdict in zip(items, verdicts, strict=True) if verdict == "conflict"]
    if conflicts:
        _store(conflicts, 0)
    for update in parsed:
        if isinstance(update, StatusUpdate):
            writer().write(statuses.STATUSES, (channel, update), timeout=ANSWER_SECONDS)
    failpoint("W4")


def _items(channel: ChannelConfig, parsed: Sequence[Parsed], receipt: Receipt) -> list[Item]:
    items: list[Item] = []
    aside: list[tuple[int, str, bytes]] = []
    for place, thing in enumerate(parsed):
        match thing:
            case Entry():
                problem = _unusable_id(thing)
                if problem:
                    aside.append((place, problem, receipt.body))
                else:
                    items.append(_item(channel, thing, receipt, place))
            case StatusUpdate() | Note():
                receipt.noted += 1
            case Unusable():
                aside.append((place, thing.reason, thing.raw or receipt.body))
    receipt.quarantined = len(aside)
    if aside or not items:
        items.append(Item(receipt, aside=aside))
    return items


def _unusable_id(entry: Entry) -> str:
    """Ids are byte-exact or nothing: they are never mended."""
    ids = (entry.chat, entry.sender.user, entry.key, entry.platform_id, entry.delivery_id, entry.new_chat, *entry.sender.aliases)
    return "" if all(map(storable, ids)) else "an id holds a NUL or a lone surrogate"


def _item(channel: ChannelConfig, entry: Entry, receipt: Receipt, place: int) -> Item:
    sender = entry.sender
    one_lane = entry.group and channel.options.get("group_lane") == "chat"
    lane = Lane(
        channel_id=channel.id,
        chat=entry.chat,
        user="" if one_lane else sender.user,
        sender_user=sender.user,
        is_group=entry.group,
        aliased=entry.group or bool(sender.aliases) or entry.kind is Kind.CHAT_MIGRATED,
    )
    person = Person(
        channel_id=channel.id,
        sender_user=sender.user,
        name=clean_text(sender.name, 200),
        username=clean_text(sender.username, 200),
        phone="".join(character for character in sender.phone if character in "0123456789"),
        email=clean_text(sender.email, 320),
        language=clean_text(sender.language, 35),
    )
    return Item(receipt, _row(channel, entry, lane, receipt, place), lane, person, _aliases(channel, entry))


def _row(channel: ChannelConfig, entry: Entry, lane: Lane, receipt: Receipt, place: int) -> Row:
    key = installation.identity_key()
    settle_ms = int(channel.options.get("settle_ms") or 0) if entry.order_key is not None else 0
    return Row(
        channel_id=channel.id,
        chat=lane.chat,
        user=lane.user,
        sender_user=lane.sender_user,
        is_group=lane.is_group,
        aliased=lane.aliased,
        identity=crypto.keyed_hash(key, str(channel.id), entry.chat, entry.kind.value, entry.key).hex(),
        content_hash=crypto.keyed_hash(key, entry.kind.value, entry.text, _content(entry)).hex(),
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
    )


_ELSEWHERE = frozenset(
    {"kind", "chat", "sender", "key", "starts_turn", "text", "platform_id", "delivery_id", "order_key", "sequence",
     "address", "group", "channel_ref"}
)  # fmt: skip


def _payload(entry: Entry) -> dict[str, Any] | None:
    """The rest of the entry, without what is empty; what had to be replaced is flagged."""
    rest = {name: value for name, value in msgspec.to_builtins(entry).items() if name not in _ELSEWHERE}
    if not storable_tree(rest):
        rest = {**clean_tree(rest), "replaced": True}
    elif not storable(entry.text):
        rest["replaced"] = True
    return rest or None


def _content(entry: Entry) -> bytes:
    """What must be the same in a repeat besides the text: attachments and a button's payload."""
    if not entry.attachments and not entry.payload:
        return b""
    return repr((entry.attachments, entry.payload)).encode("utf-8", "surrogatepass")


def _aliases(channel: ChannelConfig, entry: Entry) -> list[dict[str, Any]]:
    aliases = [{"of": "user", "value": value, "known_as": entry.sender.user} for value in entry.sender.aliases]
    if entry.kind is Kind.CHAT_MIGRATED and entry.new_chat:
        aliases.append({"of": "chat", "value": entry.new_chat, "known_as": entry.chat})
    return [{"channel_id": channel.id, **alias} for alias in aliases]


def _conflict(item: Item) -> Item:
    place = item.row.entry if item.row else 0
    return Item(item.receipt, aside=[(place, "conflict: the same message again, with other content", item.receipt.body)])


# ---------------------------------------------------------------- waiting for the COMMIT


def _store(items: Sequence[Item], size: int) -> list[str]:
    """Submit all items of a request, wait until each is committed; their verdicts."""
    deadline = time.monotonic() + ANSWER_SECONDS
    left = itertools.count(len(items) - 1, -1)
    finished = threading.Lock()
    finished.acquire()
    tickets: list[committer.Ticket] = []
    errors: list[Exception] = []

    def done(ticket: committer.Ticket) -> None:
        tickets.append(ticket)
        if next(left) == 0:
            finished.release()

    for position, item in enumerate(items):
        try:
            writer().submit(STORE, item, done, deadline=deadline, size=0 if position else size)
        except Exception as error:  # the queue is full: those before it may be stored, the request is refused
            errors.append(error)
            if next(left) == 0:
                finished.release()
    if not finished.acquire(timeout=ANSWER_SECONDS + 2):
        raise NotStored("no answer from the database in time")
    errors += [ticket.error for ticket in tickets if ticket.error is not None]
    if errors:
        raise errors[0] if isinstance(errors[0], NotStored) else NotStored(type(errors[0]).__name__) from errors[0]
    verdict_of = {id(ticket.item): ticket.result for ticket in tickets}
    return [verdict_of.get(id(item), ("aside", 0, 0))[0] for item in items]


# ---------------------------------------------------------------- writing a batch


class StoreStream:
    """One transaction for the entries of many requests."""

    name = "store"
    patient = False

    def __init__(self) -> None:
        self._lanes: dict[Lane, None] = {}
        self._people: dict[tuple[int, str], Person] = {}
        self._receipt_ids = iter(range(0))

    def lane(self, item: Item) -> Hashable:
        return (item.lane.channel_id, item.lane.chat, item.lane.user) if item.lane else item.receipt.id

    def mend(self, item: Item, error: psycopg.Error) -> Item | None:
        """Data that the database refuses is set aside with its bytes."""
        if item.row is None:
            return None
        item.receipt.quarantined += 1
        return Item(item.receipt, aside=[(item.row.entry, f"the database refused it ({error.sqlstate})", item.receipt.body)])

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Item]) -> Sequence[Any]:
        self._number_receipts(connection, items)
        statements = self._statements(items)
        failpoint("W2")
        results = database.transaction(connection, statements)
        failpoint("W3")
        self._remember(items)
        verdicts = {place: (verdict, lane) for place, verdict, lane in results.get("messages", ())}
        return [self._result(item, verdicts.get(place)) for place, item in enumerate(items)]

    def _result(self, item: Item, verdict: tuple[str, int] | None) -> Any:
        if verdict is None:
            return ("aside", 0, 0)
        word, lane = verdict
        return committer.AGAIN if word == "busy" else (word, lane, item.receipt.channel.tenant_id)

    def _statements(self, items: Sequence[Item]) -> dict[str, database.Statement]:
        statements: dict[str, database.Statement] = {}
        rows = [self._placed(item.row, place, item) for place, item in enumerate(items) if item.row]
        if rows:
            lanes = committer.as_json([item.lane for item in items if item.lane])
            statements |= self._unseen(items)
            statements["lock"] = (sql("lock_lanes"), {"items": lanes})
        receipts = {item.receipt.id: item.receipt for item in items}
        counts = [{"id": r.id, "channel_id": r.channel.id, "noted": r.noted, "quarantined": r.quarantined} for r in receipts.values()]
        statements["messages"] = (sql("store_messages"), {"items": committer.as_json(rows), "receipts": committer.as_json(counts)})
        if any(row.external_sequence is not None or row.settle_ms for row in rows):
            statements["release"] = (sql("release_lanes"), {"ids": None})
        if "people" in statements:  # after the lanes: the order of locks
            statements["changed"] = (sql("update_contacts"), statements["people"][1])
        statements |= self._aside(items)
        statements["bodies"] = (sql("store_bodies"), _bodies(receipts.values()))
        return statements

    def _placed(self, row: Row, place: int, item: Item) -> Row:
        row.ord, row.receipt_id = place, item.receipt.id
        return row

    def _unseen(self, items: Sequence[Item]) -> dict[str, database.Statement]:
        """People and lanes that this process has not seen stored; most batches have none."""
        statements: dict[str, database.Statement] = {}
        people = {(i.person.channel_id, i.person.sender_user): i.person for i in items if i.person}
        changed = [person for key, person in people.items() if self._people.get(key) != person]
        aliases = [alias for item in items for alias in item.aliases]
        lanes = list(dict.fromkeys(item.lane for item in items if item.lane and item.lane not in self._lanes))
        if changed:
            statements["people"] = (sql("add_contacts"), {"items": committer.as_json(changed)})
        if aliases:
            statements["aliases"] = (sql("add_aliases"), {"items": committer.as_json(aliases)})
        if lanes:
            statements["lanes"] = (sql("add_conversations"), {"items": committer.as_json(lanes)})
        return statements

    def _aside(self, items: Sequence[Item]) -> dict[str, database.Statement]:
        key = installation.identity_key()
        return {
            f"aside {item.receipt.id} {place}": (
                sql("quarantine"),
                {"channel_id": item.receipt.channel.id, "receipt_id": item.receipt.id, "entry": place, "reason": reason,
                 "body": body, "fingerprint": crypto.keyed_hash(key, str(place), reason, body)},
            )
            for item in items
            for place, reason, body in item.aside
        }  # fmt: skip

    def _remember(self, items: Sequence[Item]) -> None:
        if len(self._lanes) > REMEMBERED:
            self._lanes.clear()
            self._people.clear()
        for item in items:
            if item.lane and item.person:
                self._lanes[item.lane] = None
                self._people[item.person.channel_id, item.person.sender_user] = item.person

    def _number_receipts(self, connection: psycopg.Connection[Any], items: Sequence[Item]) -> None:
        for item in items:
            if not item.receipt.id:
                item.receipt.id = next(self._receipt_ids, 0) or self._next_block(connection)

    def _next_block(self, connection: psycopg.Connection[Any]) -> int:
        row = connection.execute("SELECT nextval('receipt_block')").fetchone()
        assert row is not None
        self._receipt_ids = iter(range(row[0] + 1, row[0] + BLOCK))
        return int(row[0])


def _bodies(receipts: Any) -> dict[str, Any]:
    kept = [receipt for receipt in receipts if receipt.body]
    return {
        "ids": [receipt.id for receipt in kept],
        "headers": [msgspec.json.encode(receipt.headers).decode() for receipt in kept],
        "bodies": [receipt.body for receipt in kept],
    }


STORE = StoreStream()


def _wake(tickets: list[committer.Ticket]) -> None:
    """After COMMIT and after the answers are released; see ``wake``."""
    stored: dict[int, list[int]] = {}
    for ticket in tickets:
        if ticket.stream is STORE and ticket.result and ticket.result[0] == "stored":
            stored.setdefault(ticket.result[2], []).append(ticket.result[1])
            log.info("stored", conversation=ticket.result[1], trace=ticket.item.row.identity[:16])
    for tenant_id, lanes in stored.items():
        wake.handle(lanes, tenant_id)


@functools.cache
def writer() -> committer.Committer:
    """The process's one committer for storing; made at the first use, after any fork. Reads go through it, too."""
    made = committer.Committer("store", after_batch=_wake)
    database.read_through(committer.reader(made))
    return made
