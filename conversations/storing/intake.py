"""Store and number: dedupe, give numbers, COMMIT, then wake.

``accept`` returns only after its own COMMIT. One committer per web process takes whatever requests
are ready and stores them in one transaction; see ``sql/lock_lanes.sql`` and ``sql/store_messages.sql``.

**Invariant:** a request is answered 2xx only after everything in it is stored, set aside or knowingly noted.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
import structlog

from conversations import crypto, installation
from conversations.contracts import ChannelConfig, Entry, Kind, Note, Parsed, StatusUpdate, Unusable, WebhookRequest
from conversations.errors import Busy, NotStored
from conversations.failpoints import failpoint
from conversations.postgres import committer, database, reads
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text, clean_tree, storable, storable_tree
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Result, Stream, Ticket, as_json
from conversations.storing import spool, statuses
from conversations.telemetry import logs
from conversations.waking import wake

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 2.5
KEPT_HEADERS = frozenset(
    {"content-type", "user-agent", "content-length", "webhook-id", "webhook-timestamp", "x-request-id"}
)
ID_BYTES = 1_000  # two of them in one index entry, which Postgres bounds
REMEMBERED = 100_000  # lanes and contacts that this process has seen stored
REMEMBER_SECONDS = 60.0  # another process may have written another name since
LINGER_SECONDS = 0.01  # a batch costs as much as ten of its messages
BLOCK = 1000  # receipt ids per trip, see receipt_block in migrations/sql/schema.sql


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry as ``store_messages.sql`` reads it; ``ord`` is its place in the batch."""

    ord: int = -1
    channel_id: int
    chat: str
    user: str
    sender_user: str
    is_group: bool = False
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


class Person(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the webhook itself says of its sender."""

    channel_id: int
    sender_user: str
    name: str = ""
    username: str = ""
    phone: str = ""
    email: str = ""
    language: str = ""


def _kept(request: WebhookRequest) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in KEPT_HEADERS}


class Receipt:
    """One request while it is being stored."""

    __slots__ = ("body", "channel", "headers", "id", "kept", "noted", "quarantined")

    def __init__(self, channel: ChannelConfig, request: WebhookRequest) -> None:
        self.id = 0  # given by the committer
        self.channel = channel
        self.body = request.body
        self.headers = {name: clean_text(value) for name, value in _kept(request).items()}
        self.noted = self.quarantined = 0
        self.kept = False  # its body is in receipt_body


class Aside(msgspec.Struct, frozen=True):
    """Authentic bytes that are no message, for staff."""

    place: int  # in the request
    reason: str
    body: bytes
    fingerprint: bytes


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
        aside: Sequence[Aside] = (),
    ) -> None:
        self.receipt, self.row, self.lane, self.person, self.aliases = receipt, row, lane, person, aliases
        self.aside = aside


# ---------------------------------------------------------------- accepting one request


def accept(channel: ChannelConfig, parsed: Sequence[Parsed], request: WebhookRequest, *, spent: float = 0.0) -> None:
    """Store everything that ``parsed`` holds; return after COMMIT, or once it is in this host's spool.

    Raises ``Busy`` when the queue is full and ``NotStored`` when it could not be stored within
    ``ANSWER_SECONDS``, of which ``spent`` are over: the caller answers 503 and the platform comes again.
    """
    failpoint("W1")
    seconds = ANSWER_SECONDS - spent
    if not spool.is_on():
        store([spool.Request(channel, parsed, request)], seconds)
    else:
        kept = msgspec.structs.replace(request, headers=_kept(request))
        _store_or_spool(spool.Request(channel, parsed, kept), seconds)
    failpoint("W4")


def _store_or_spool(request: spool.Request, seconds: float) -> None:
    """While the spool holds anything, behind it; see ``spool``."""
    if spool.holds() and spool.append(request, only_behind=True):
        return
    try:
        store([request], seconds)
    except (Busy, NotStored, psycopg.Error) as error:
        log.warning("spooled", channel=request.channel.id, error=type(error).__name__)
        spool.append(request)


def store(requests: Sequence[spool.Request], seconds: float = ANSWER_SECONDS) -> None:
    """Store what some requests hold, in their order; return after COMMIT."""
    until = time.monotonic() + seconds
    items = [item for each in requests for item in _items(each)]
    size = sum(len(each.request.body) for each in requests)
    verdicts = [result[0] for result in _write(STORE, items, seconds, size)]
    conflicts = [_conflict(item) for item, verdict in zip(items, verdicts, strict=True) if verdict == "conflict"]
    updates = [(each.channel, thing) for each in requests for thing in each.parsed if isinstance(thing, StatusUpdate)]
    _write(STORE, conflicts, until - time.monotonic())
    said = _write(statuses.STATUSES, updates, until - time.monotonic())
    statuses.look_again(_say_again, [update for update, word in zip(updates, said, strict=True) if word == "kept"])


def _say_again(update: statuses.Said) -> None:
    with contextlib.suppress(Busy, NotStored):
        writer().submit(statuses.STATUSES, update, lambda tickets: None, deadline=time.monotonic() + ANSWER_SECONDS)


def _write(stream: Stream[Any, Result], items: Sequence[Any], seconds: float, size: int = 0) -> list[Result]:
    """All ``items``, committed; what keeps one from it is our fault, and the platform comes again."""
    try:
        return writer().write_all(stream, items, seconds, size)
    except psycopg.Error as error:
        raise NotStored(type(error).__name__) from error


def _items(request: spool.Request) -> list[Item]:
    channel, parsed, _ = request
    receipt = Receipt(channel, request.request)
    items: list[Item] = []
    aside: list[Aside] = []
    for place, thing in enumerate(parsed):
        match thing:
            case Entry():
                problem = _unusable(thing)
                if problem:
                    aside.append(_aside(place, problem, receipt.body))
                else:
                    items.append(_item(channel, thing, receipt, place))
            case StatusUpdate() | Note():
                receipt.noted += 1
            case Unusable():
                aside.append(_aside(place, thing.reason, thing.raw or receipt.body))
    receipt.quarantined = len(aside)
    if aside or not items:
        items.append(Item(receipt, aside=aside))
    return items


def _aside(place: int, reason: str, body: bytes) -> Aside:
    reason = clean_text(reason, 500)
    return Aside(place, reason, body, crypto.keyed_hash(installation.identity_key(), str(place), reason, body))


def _unusable(entry: Entry) -> str:
    """Why an entry can never be stored; '' when it can. Ids are byte-exact or nothing: they are never mended."""
    sender = entry.sender
    indexed = (entry.chat, sender.user, entry.new_chat, *sender.aliases)
    if not all(map(storable, (*indexed, entry.key, entry.platform_id, entry.delivery_id))):
        return "an id holds a NUL or a lone surrogate"
    if any(len(id_.encode()) > ID_BYTES for id_ in indexed):
        return f"an id has more than {ID_BYTES} bytes"
    return ""


def _item(channel: ChannelConfig, entry: Entry, receipt: Receipt, place: int) -> Item:
    sender = entry.sender
    one_lane = entry.group and channel.options.get("group_lane") == "chat"
    lane = Lane(
        channel_id=channel.id,
        chat=entry.chat,
        user="" if one_lane else sender.user,
        sender_user=sender.user,
        is_group=entry.group,
    )
    person = Person(
        channel_id=channel.id,
        sender_user=sender.user,
        name=clean_text(sender.name, 200),
        username=clean_text(sender.username, 200),
        phone="".join(character for character in sender.phone if character in "0123456789")[:32],
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
    """What leads to the same lane. A chat that is named after its person changes its name with him."""
    user = entry.sender.user
    kinds = ("user", "chat") if entry.chat == user else ("user",)
    aliases = [{"of": of, "value": value, "known_as": user} for value in entry.sender.aliases for of in kinds]
    if entry.kind is Kind.CHAT_MIGRATED and entry.new_chat:
        aliases.append({"of": "chat", "value": entry.new_chat, "known_as": entry.chat})
    return [{"channel_id": channel.id, **alias} for alias in aliases]


def _conflict(item: Item) -> Item:
    """The same identity with other content: kept and shown, beside the message that was first."""
    assert item.row is not None
    item.receipt.quarantined += 1
    reason = "conflict: the same message again, with other content"
    return Item(item.receipt, aside=[_aside(item.row.entry, reason, item.receipt.body)])


# ---------------------------------------------------------------- writing a batch


class StoreStream(Stream[Item, tuple[str, int, int]]):
    """One transaction for the entries of many requests."""

    name = "store"
    patient = False

    def __init__(self) -> None:
        self._lanes: dict[Lane, None] = {}
        self._people: dict[tuple[int, str], Person] = {}
        self._forget_at = 0.0
        self._receipt_ids = iter(range(0))

    def lane(self, item: Item) -> Hashable:
        return (item.lane.channel_id, item.lane.chat, item.lane.user) if item.lane else id(item.receipt)

    def owner(self, item: Item) -> Hashable:
        return item.receipt.channel.tenant_id

    def mend(self, item: Item, error: psycopg.Error) -> Item | None:
        """Data that the database refuses is set aside with its bytes."""
        if item.row is None:
            return None
        item.receipt.quarantined += 1
        reason = f"the database refused it ({error.sqlstate or error})"
        return Item(item.receipt, aside=[_aside(item.row.entry, reason, item.receipt.body)])

    def write(self, connection: psycopg.Connection[Any], items: Sequence[Item]) -> Sequence[Any]:
        self._number_receipts(connection, items)
        firsts, twins = _twins(items)
        statements = self._statements(items, firsts, twins)
        results = database.transaction(connection, statements, point="W2")
        failpoint("W3")
        kept = {receipt for place, _, receipt in results["messages"] if place is None}
        for item in items:
            item.receipt.kept = item.receipt.kept or item.receipt.id in kept
        verdicts = {place: (verdict, lane) for place, verdict, lane in results["messages"] if place is not None}
        self._remember(firsts, verdicts, {(channel, user) for channel, user in results.get("changed", ())})
        for place, first in twins.items():
            word, lane = verdicts[first]
            verdicts[place] = ("duplicate" if word == "stored" else word, lane)
        return [self._result(item, verdicts.get(place)) for place, item in enumerate(items)]

    def _result(self, item: Item, verdict: tuple[str, int] | None) -> tuple[str, int, int] | LaneLocked:
        if verdict is None:
            return ("aside", 0, 0)
        word, lane = verdict
        return LANE_LOCKED if word == "busy" else (word, lane, item.receipt.channel.tenant_id)

    def _statements(
        self, items: Sequence[Item], firsts: Mapping[int, Item], twins: Mapping[int, int]
    ) -> dict[str, database.Statement]:
        statements: dict[str, database.Statement] = {}
        rows = [self._placed(item.row, place, item) for place, item in firsts.items() if item.row]
        if rows:
            lanes = as_json([*dict.fromkeys(item.lane for item in firsts.values() if item.lane)])
            statements |= self._unseen(firsts.values())
            statements["lock"] = (sql("lock_lanes"), {"items": lanes})
        receipts = {item.receipt.id: item.receipt for item in items}
        again: dict[int, list[int]] = collections.defaultdict(list)
        for place, first in twins.items():
            again[items[place].receipt.id].append(first)
        counts = [_counts(receipt, again.get(receipt.id, ())) for receipt in receipts.values()]
        values = {"items": as_json(rows), "receipts": as_json(counts)}
        statements["messages"] = (sql("store_messages"), values | _bodies(receipts.values()))
        if any(row.external_sequence is not None or row.settle_ms for row in rows):
            statements["release"] = (sql("release_lanes"), {"ids": None})
        if "people" in statements:  # after the lanes: the order of locks
            statements["changed"] = (sql("update_contacts"), statements["people"][1])
        return statements | self._quarantined(items)

    def _placed(self, row: Row, place: int, item: Item) -> Row:
        row.ord, row.receipt_id = place, item.receipt.id
        return row

    def _unseen(self, items: Collection[Item]) -> dict[str, database.Statement]:
        """People and lanes that this process has not seen stored; most batches have none."""
        statements: dict[str, database.Statement] = {}
        people = {(i.person.channel_id, i.person.sender_user): i.person for i in items if i.person}
        changed = [person for key, person in people.items() if self._people.get(key) != person]
        aliases = [alias for item in items for alias in item.aliases]
        lanes = list(dict.fromkeys(item.lane for item in items if item.lane and item.lane not in self._lanes))
        if aliases:  # before people and lanes, which are looked up through them
            statements["aliases"] = (sql("add_aliases"), {"items": as_json(aliases)})
        if changed:
            statements["people"] = (sql("add_contacts"), {"items": as_json(changed)})
        if lanes:
            statements["lanes"] = (sql("add_conversations"), {"items": as_json(lanes)})
        return statements

    def _quarantined(self, items: Sequence[Item]) -> dict[str, database.Statement]:
        """In one order in all processes: the same bytes may be set aside by several at once."""
        things = sorted(
            ((item.receipt, aside) for item in items for aside in item.aside),
            key=lambda pair: (pair[0].channel.id, pair[1].fingerprint),
        )
        return {f"aside {number}": (sql("quarantine"), _set_aside(*thing)) for number, thing in enumerate(things)}

    def _remember(
        self, items: Mapping[int, Item], verdicts: Mapping[int, tuple[str, int]], stale: set[tuple[int, str]]
    ) -> None:
        """Lanes and people that need no look before the next batch; ``stale``: contacts whose row was busy."""
        now = time.monotonic()
        if now >= self._forget_at or len(self._lanes) > REMEMBERED:
            self._lanes.clear()
            self._people.clear()
            self._forget_at = now + REMEMBER_SECONDS
        for place, item in items.items():
            if item.lane is None or item.person is None:
                continue
            if verdicts[place][0] == "busy":  # held by somebody, or gone, or known by another id since
                self._lanes.pop(item.lane, None)
                continue
            self._lanes[item.lane] = None
            person = (item.person.channel_id, item.person.sender_user)
            if person not in stale:
                self._people[person] = item.person

    def _number_receipts(self, connection: psycopg.Connection[Any], items: Sequence[Item]) -> None:
        for item in items:
            if not item.receipt.id:
                item.receipt.id = next(self._receipt_ids, 0) or self._next_block(connection)

    def _next_block(self, connection: psycopg.Connection[Any]) -> int:
        row = connection.execute("SELECT nextval('receipt_block')").fetchone()
        assert row is not None
        self._receipt_ids = iter(range(row[0] + 1, row[0] + BLOCK))
        return int(row[0])


def _twins(items: Sequence[Item]) -> tuple[dict[int, Item], dict[int, int]]:
    """Items by their places, without those that say once more what one before them says: these with its place.

    What becomes of the first becomes of them: in a storm of copies each message is written and looked up once.
    """
    firsts: dict[int, Item] = {}
    twins: dict[int, int] = {}
    places: dict[tuple[str, str], int] = {}
    for place, item in enumerate(items):
        first = places.setdefault((item.row.identity, item.row.content_hash), place) if item.row else place
        if first == place or item.aliases:  # these are written whoever brings them
            firsts[place] = item
        else:
            twins[place] = first
    return firsts, twins


def _counts(receipt: Receipt, twins: Sequence[int]) -> dict[str, Any]:
    return {
        "id": receipt.id,
        "channel_id": receipt.channel.id,
        "noted": receipt.noted,
        "quarantined": receipt.quarantined,
        "twins": twins,
    }


def _set_aside(receipt: Receipt, aside: Aside) -> dict[str, Any]:
    return {
        "channel_id": receipt.channel.id,
        "receipt_id": receipt.id,
        "entry": aside.place,
        "reason": aside.reason,
        "body": aside.body,
        "fingerprint": aside.fingerprint,
    }


def _bodies(receipts: Any) -> dict[str, Any]:
    """Those that are not in receipt_body yet."""
    new = [receipt for receipt in receipts if receipt.body and not receipt.kept]
    return {
        "ids": [receipt.id for receipt in new],
        "headers": as_json([receipt.headers for receipt in new]),
        "bodies": [receipt.body for receipt in new],
    }


STORE = StoreStream()


def _wake(tickets: list[Ticket[Any, Any]]) -> None:
    """After COMMIT and after the answers are released; see ``wake``."""
    lanes: dict[int, list[int]] = {}
    lines: list[logs.Line] = []
    for ticket in tickets:
        if ticket.stream is STORE and ticket.error is None and ticket.result[0] == "stored":
            lanes.setdefault(ticket.result[2], []).append(ticket.result[1])
            lines.append({"conversation": ticket.result[1], "trace": ticket.item.row.identity[:16]})
    for tenant_id, its in lanes.items():
        wake.handle(its, tenant_id)
    logs.together(log, "stored", lines)


@functools.cache
def writer() -> committer.Committer:
    """The process's one committer for storing; made at the first use, after any fork. Reads go through it, too."""
    made = committer.Committer("store", after_batch=_wake, linger=LINGER_SECONDS)
    database.read_through(reads.reader(made), made.refuse_if_silent)
    return made
