"""The updates of one webhook of Meta, in their order, each with its own bytes.

``{object, entry: [{id, changes: [{field, value}]} | {id, messaging | standby: [...]}]}``: one
request holds up to 1,000 updates, of several accounts. ``value`` has lists (messages, statuses) and
what their items share (metadata, contacts).

A request with one update, the usual one, is decoded as a whole. Any other is split into the bytes
of its updates, and each is decoded by itself: what cannot be read does not cost its neighbours, and
quarantine keeps its bytes as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from channels_ingest.adapters.reading import Json, bigint
from channels_ingest.formats.strict_json import (
    Unreadable,
    read_json,
    read_object,
    refuse_floods,
    split_array,
    split_object,
)
from conversations.contracts import Struct, Unusable

# Most items of one list; Meta sends 1,000 updates in a request at most. Larger: one request takes
# more time and memory. Smaller: a list of a batch is quarantined as a whole.
MAX_ITEMS = 5_000
# Most tokens (strings, brackets, commas) of a request: 100 for each item, where an ordinary one has
# about 40. Larger: one request takes more memory. Smaller: batches of long items are quarantined.
MAX_TOKENS = 100 * MAX_ITEMS
ENTRY_LISTS = ("messaging", "standby")  # Messenger and Instagram: events beside ``changes``


class Update(Struct, frozen=True):
    """One item of a list, or a whole value that has none of the known lists.

    ``field``: the change's field; '' for an item of ``messaging`` or ``standby``. ``name``: the
    list; '' for a whole value. ``item`` is empty where the update says nothing. ``shared``: the
    value's other members, the same object for all items of a value. ``count``: the items of its
    list. ``problem``: why the item could not be read. ``raw``: its bytes, which are the whole body if
    it holds nothing else.
    """

    object: str
    account: str  # entry[].id
    time: int = 0  # entry[].time, in unix seconds; 0 if it is not there
    field: str = ""
    name: str = ""
    item: Json = {}
    shared: Json = {}
    count: int = 1
    problem: str = ""
    raw: bytes = b""


class Shape(NamedTuple):
    """What a platform's webhooks hold. ``unread``: fields whose value is not decoded."""

    lists: tuple[str, ...]
    unread: Collection[str]


class _Node(NamedTuple):
    """How a value is opened: decoded already, or still bytes. Each raises ``Unreadable``."""

    members: Callable[[Any], Json]
    items: Callable[[Any], list[Any]]
    value: Callable[[Any], Any]
    raw: Callable[[Any], bytes]


def read_updates(body: bytes, shape: Shape) -> list[Update | Unusable]:
    """Return the updates of ``body``; what cannot be read becomes ``Unusable``, with its bytes."""
    try:
        found = list(_walk(read_object(body), _DECODED, shape))
    except Unreadable:
        found = []
    if len(found) == 1:
        return [msgspec.structs.replace(found[0], raw=body)]
    try:
        refuse_floods(body, MAX_TOKENS)
        return list(_walk(body, _SPLIT, shape))
    except Unreadable as error:
        return [Unusable(reason=str(error), raw=body)]


def _walk(body: Any, how: _Node, shape: Shape) -> Iterator[Update | Unusable]:
    members = how.members(body)
    about = _word(how, members, "object")
    entries = how.items(members.get("entry"))
    for entry in entries:
        yield from _guarded(how, entry, _entry(about, entry, how, shape))
    if not entries:
        yield Update(object=about, account="", raw=how.raw(body))


def _guarded(how: _Node, node: Any, updates: Iterator[Update | Unusable]) -> Iterator[Update | Unusable]:
    """Yield ``updates``; where reading them fails, the bytes of ``node``.

    A decoded request has no bytes to keep: there the error goes on, and the request is split.
    """
    try:
        yield from updates
    except Unreadable as error:
        if how is _DECODED:
            raise
        yield Unusable(reason=str(error), raw=how.raw(node))


def _entry(about: str, entry: Any, how: _Node, shape: Shape) -> Iterator[Update | Unusable]:
    members = how.members(entry)
    time = bigint(how.value(members["time"])) if "time" in members else 0
    base = Update(object=about, account=_word(how, members, "id"), time=time or 0, raw=how.raw(entry))
    lists = [(name, how.items(members.get(name))) for name in ENTRY_LISTS]
    changes = how.items(members.get("changes"))
    for name, items in lists:
        yield from _items(base, {}, name, items, how)
    for change in changes:
        yield from _guarded(how, change, _change(base, change, how, shape))
    if not changes and not any(items for _, items in lists):
        yield base


def _change(base: Update, change: Any, how: _Node, shape: Shape) -> Iterator[Update | Unusable]:
    """Yield the items of a change's lists; without any, the value itself."""
    members = how.members(change)
    base = _replace(base, field=_word(how, members, "field"), raw=how.raw(change))
    if base.field in shape.unread or "value" not in members:
        yield base
        return
    value = how.members(members["value"])
    lists = [(name, how.items(value[name])) for name in shape.lists if name in value]
    shared = {name: how.value(node) for name, node in value.items() if name not in shape.lists}
    for name, items in lists:
        yield from _items(base, shared, name, items, how)
    if not any(items for _, items in lists):
        yield _replace(base, item=shared, shared=shared, raw=base.raw)


def _items(base: Update, shared: Json, name: str, items: list[Any], how: _Node) -> Iterator[Update]:
    """Yield a list's items. One that cannot be read is still known to belong to its value."""
    for item in items:
        try:
            found: dict[str, Any] = {"item": _members_of(how.value(item)), "count": len(items)}
        except Unreadable as error:
            if how is _DECODED:
                raise
            found = {"problem": str(error)}
        yield _replace(base, name=name, shared=shared, raw=how.raw(item), **found)


def _replace(base: Update, **changed: Any) -> Update:
    return Update(**{"object": base.object, "account": base.account, "time": base.time, "field": base.field, **changed})


def _word(how: _Node, members: Json, name: str) -> str:
    """Return a member that should be text, as text; '' if it is missing or is something else."""
    value = how.value(members[name]) if name in members else ""
    return value if isinstance(value, str) else ""


# ---------------------------------------------------------------- decoded, or still bytes


def _members_of(value: Any) -> Json:
    if not isinstance(value, dict):
        raise Unreadable("a part that must be an object is none")
    return value


def _items_of(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unreadable("a part that must be a list is none")
    return value


_DECODED = _Node(members=_members_of, items=_items_of, value=lambda value: value, raw=lambda value: b"")
_SPLIT = _Node(
    members=split_object,
    items=lambda raw: split_array(raw, MAX_ITEMS) if raw not in (None, b"null") else [],
    value=read_json,
    raw=lambda raw: raw,
)
