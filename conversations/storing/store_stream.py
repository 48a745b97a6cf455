"""The entries of many requests, stored in one transaction.

``sql/lock_lanes.sql`` locks the lanes of a batch, ``sql/store_messages.sql`` numbers and stores its
messages. A twin is an item with the identity and the content of an earlier item of the batch: when
many copies of one webhook meet, the message is looked up and written once.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from conversations.failpoints import failpoint
from conversations.postgres import database
from conversations.postgres.sql_files import sql
from conversations.postgres.stream import LANE_LOCKED, LaneLocked, Stream, as_json
from conversations.storing.rows import AliasRow, ContactRow, LaneRow, MessageRow, Receipt, StoreItem, as_quarantined

# Lanes (conversations) that a process remembers as stored, with their contacts; one more, and it
# forgets all of them. Larger: more memory. Smaller: more batches look them up again.
REMEMBERED = 100_000
# Seconds after which it forgets them as well, because another process may have written another name
# meanwhile. Larger: an outdated name stays for longer. Smaller: more look-ups.
REMEMBER_SECONDS = 60.0
# Receipt ids fetched at once. It must be the increment of the sequence receipt_block (in
# migrations/sql/schema.sql), or two processes give the same id.
BLOCK = 1000

Statements = dict[str, database.Statement]


class StoreStream(Stream[StoreItem, tuple[str, int, int]]):
    """One transaction per batch. Results: verdict, lane id, tenant id.

    Verdicts: stored, duplicate, conflict (the identity of a stored message, with other content),
    aside (there was no message to store).
    """

    name = "store"
    patient = False

    def __init__(self) -> None:
        self._lanes: dict[LaneRow, None] = {}
        self._contacts: dict[tuple[int, str], ContactRow] = {}
        self._forget_at = 0.0
        self._receipt_ids = iter(range(0))  # what is left of the fetched block

    def lane(self, item: StoreItem) -> Hashable:
        """Return the person's lane. Without a message, the order within the request is enough."""
        return (item.lane.channel_id, item.lane.chat, item.lane.user) if item.lane else id(item.receipt)

    def wider_lane(self, item: StoreItem) -> Hashable:
        """Return the channel: only the database knows which ids are one person's."""
        return item.lane.channel_id if item.lane else self.lane(item)

    def owner(self, item: StoreItem) -> Hashable:
        return item.receipt.channel.tenant_id

    def mend(self, item: StoreItem, error: psycopg.Error) -> StoreItem | None:
        """Quarantine what the database refuses, with its bytes."""
        if item.row is None:
            return None
        return as_quarantined(item, f"the database refused it ({error.sqlstate or error})")

    def write(
        self, connection: psycopg.Connection[Any], items: Sequence[StoreItem]
    ) -> Sequence[tuple[str, int, int] | LaneLocked]:
        """Store the firsts. A twin gets its first's verdict, with duplicate instead of stored."""
        self._number_receipts(connection, items)
        firsts, twins = _split_twins(items)
        results = database.transaction(connection, self._statements(items, firsts, twins), point="W2")
        failpoint("W3")
        kept = {receipt for place, _, receipt in results["messages"] if place is None}
        for item in items:
            item.receipt.kept = item.receipt.kept or item.receipt.id in kept
        found = {place: (verdict, lane) for place, verdict, lane in results["messages"] if place is not None}
        self._remember(firsts, found, {(channel, user) for channel, user in results.get("changed", ())})
        for place, first in twins.items():
            verdict, lane = found[first]
            found[place] = ("duplicate" if verdict == "stored" else verdict, lane)
        return [self._result(item, found.get(place)) for place, item in enumerate(items)]

    def _result(self, item: StoreItem, found: tuple[str, int] | None) -> tuple[str, int, int] | LaneLocked:
        """Return an item's result. ``found``: verdict and lane id, or None without a message."""
        if found is None:
            return ("aside", 0, 0)
        verdict, lane = found
        return LANE_LOCKED if verdict == "busy" else (verdict, lane, item.receipt.channel.tenant_id)

    def _statements(
        self, items: Sequence[StoreItem], firsts: Mapping[int, StoreItem], twins: Mapping[int, int]
    ) -> Statements:
        """Return the statements of a batch, by name, in the order in which they must run.

        Lanes and contacts are inserted before any lane is locked, and contacts are updated last:
        all transactions lock rows in this order, so that they cannot deadlock.
        """
        statements: Statements = {}
        rows: list[MessageRow] = []
        for place, item in firsts.items():
            if item.row:
                item.row.ord, item.row.receipt_id = place, item.receipt.id
                rows.append(item.row)
        if rows:
            lanes = as_json([*dict.fromkeys(item.lane for item in firsts.values() if item.lane)])
            statements |= self._unseen(firsts.values())
            statements["lock"] = (sql("lock_lanes"), {"items": lanes})
        receipts = {item.receipt.id: item.receipt for item in items}
        firsts_of_twins: dict[int, list[int]] = collections.defaultdict(list)  # by receipt id
        for place, first in twins.items():
            firsts_of_twins[items[place].receipt.id].append(first)
        counts = [_counts(receipt, firsts_of_twins.get(receipt.id, ())) for receipt in receipts.values()]
        values = {"items": as_json(rows), "receipts": as_json(counts)}
        statements["messages"] = (sql("store_messages"), values | _bodies(receipts.values()))
        if wished := [{"ord": row.ord, "wish": row.wish, **_source(row)} for row in rows if row.wish]:
            statements["wishes"] = (sql("apply_wishes"), {"items": as_json(wished)})
        if any(row.external_sequence is not None or row.settle_ms for row in rows):
            statements["release"] = (sql("release_lanes"), {"ids": None})
        if "contacts" in statements:  # after the lanes: the order of locks
            statements["changed"] = (sql("update_contacts"), statements["contacts"][1])
        return statements | self._quarantine(items)

    def _unseen(self, items: Collection[StoreItem]) -> Statements:
        """Return statements that insert aliases, and contacts and lanes that are not remembered.

        Usually there are none: most messages come from people who wrote before.
        """
        statements: Statements = {}
        changed = [
            {**msgspec.to_builtins(contact), **_source(item.row)}
            for item in items
            if item.row and (contact := item.contact) and self._contacts.get(_person(contact)) != contact
        ]
        lanes = list(dict.fromkeys(item.lane for item in items if item.lane and item.lane not in self._lanes))
        statements |= _ids(items)  # first, because contacts and lanes are looked up by them
        if changed:
            statements["contacts"] = (sql("add_contacts"), {"items": as_json(changed)})
        if lanes:
            statements["lanes"] = (sql("add_conversations"), {"items": as_json(lanes)})
        return statements

    def _quarantine(self, items: Sequence[StoreItem]) -> Statements:
        """Return a statement per quarantined entry.

        All processes write them in the same order, because several may quarantine the same bytes
        at once and would lock each other's rows.
        """
        rows = [
            {"channel_id": item.receipt.channel.id, "receipt_id": item.receipt.id, **msgspec.structs.asdict(entry)}
            for item in items
            for entry in item.quarantine
        ]
        rows.sort(key=lambda row: (row["channel_id"], row["fingerprint"]))
        return {f"quarantine {number}": (sql("quarantine"), row) for number, row in enumerate(rows)}

    def _remember(
        self, items: Mapping[int, StoreItem], found: Mapping[int, tuple[str, int]], stale: set[tuple[int, str]]
    ) -> None:
        """Remember lanes and contacts as stored, so that later batches need not insert them again.

        ``stale``: channel and user of contacts that were locked elsewhere and are not up to date.
        """
        now = time.monotonic()
        if now >= self._forget_at or len(self._lanes) > REMEMBERED:
            self._lanes.clear()
            self._contacts.clear()
            self._forget_at = now + REMEMBER_SECONDS
        for place, item in items.items():
            if item.lane is None or item.contact is None:
                continue
            if found[place][0] == "busy":  # the lane is locked, deleted, or has another id
                self._lanes.pop(item.lane, None)
                continue
            self._lanes[item.lane] = None
            if found[place][0] == "stored" and _person(item.contact) not in stale:
                self._contacts[_person(item.contact)] = item.contact

    def _number_receipts(self, connection: psycopg.Connection[Any], items: Sequence[StoreItem]) -> None:
        """Give each new receipt its id; a receipt keeps it when its batch is written again."""
        for item in items:
            if not item.receipt.id:
                item.receipt.id = next(self._receipt_ids, 0) or self._next_block(connection)

    def _next_block(self, connection: psycopg.Connection[Any]) -> int:
        """Fetch the next block of receipt ids. Return its first id and keep the others."""
        row = connection.execute("SELECT nextval('receipt_block')").fetchone()
        assert row is not None
        self._receipt_ids = iter(range(row[0] + 1, row[0] + BLOCK))
        return int(row[0])


def _split_twins(items: Sequence[StoreItem]) -> tuple[dict[int, StoreItem], dict[int, int]]:
    """Return the items to write by their index, and for each twin's index the index of its first.

    The first is the earliest of the equal items; its twins share its outcome.
    """
    firsts: dict[int, StoreItem] = {}
    twins: dict[int, int] = {}
    places: dict[tuple[str, str], int] = {}
    for place, item in enumerate(items):
        first = places.setdefault((item.row.identity, item.row.content_hash), place) if item.row else place
        if first == place:
            firsts[place] = item
        else:
            twins[place] = first
    return firsts, twins


def _ids(items: Iterable[StoreItem]) -> Statements:
    """Return the statements that write ids of people and chats, each id once in a statement.

    Where an id comes with another one than before, what that means depends on what is written by
    then: it belongs to a later step. All else is in the first one, in key order: processes with the
    same items, in whatever order, lock the same rows one after the other.
    """
    statements: Statements = {}
    for number, (aliases, moves) in sorted(_steps(items).items()):
        if aliases:
            rows = [{**msgspec.to_builtins(alias), "identities": said} for alias, said in aliases.items()]
            statements[f"ids {number}"] = (sql("add_aliases"), {"items": as_json(rows)})
        for place, move in enumerate(sorted(moves, key=lambda move: (move["channel_id"], move["of"], move["ids"]))):
            statements[f"ids {number}, move {place}"] = (sql("move_ids"), move)
    return statements


def _steps(items: Iterable[StoreItem]) -> Mapping[int, tuple[dict[AliasRow, list[str]], list[Mapping[str, Any]]]]:
    """Return aliases, each with the identities of its messages, and moves, by the number of their step.

    A conflict, an item with the identity of an earlier one, changes no ids.
    """
    steps: dict[int, Any] = collections.defaultdict(lambda: ({}, []))
    last: dict[tuple[int, str, str], tuple[int, Any]] = {}  # by id: the last step that names it, and as what

    def step(what: Any, channel_id: int, of: str, ids: Iterable[str]) -> Any:
        keys = [(channel_id, of, id_) for id_ in ids]
        number = max(number + (before != what) for number, before in (last.get(key, (0, what)) for key in keys))
        last.update(dict.fromkeys(keys, (number, what)))
        return steps[number]

    firsts: dict[str, StoreItem] = {}
    for item in items:
        if item.row:
            firsts.setdefault(item.row.identity, item)
    for identity, item in firsts.items():
        for alias in item.aliases:
            aliases, _ = step(alias, alias.channel_id, alias.of, (alias.value, alias.known_as))
            aliases.setdefault(alias, []).append(identity)
        for move in item.moves:
            step(move, move["channel_id"], move["of"], move["ids"])[1].append(move)
    return steps


def _counts(receipt: Receipt, twins: Sequence[int]) -> dict[str, Any]:
    """Return a receipt as ``store_messages.sql`` reads it. ``twins``: indexes of their firsts."""
    return {
        "id": receipt.id,
        "channel_id": receipt.channel.id,
        "noted": receipt.noted,
        "quarantined": receipt.quarantined,
        "twins": twins,
    }


def _source(row: MessageRow) -> dict[str, Any]:
    """Return what tells a message that this request stores from one that was stored before."""
    return {"identity": row.identity, "receipt_id": row.receipt_id, "entry": row.entry}


def _person(contact: ContactRow) -> tuple[int, str]:
    return contact.channel_id, contact.sender_user


def _bodies(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """Return ids, headers and bodies of receipts whose body is not in receipt_body yet."""
    new = [receipt for receipt in receipts if receipt.body and not receipt.kept]
    return {
        "ids": [receipt.id for receipt in new],
        "headers": as_json([receipt.headers for receipt in new]),
        "bodies": [receipt.body for receipt in new],
    }


STORE = StoreStream()
