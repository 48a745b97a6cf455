"""One kind of write and one item of it: what a caller of the committer has to know."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec
import psycopg

from conversations.errors import NotStored

Item = TypeVar("Item")
Result = TypeVar("Result")


class LaneLocked(enum.Enum):
    """The answer for an item whose lane another transaction has locked: the item has to wait.

    An enum of one value, so that ``Result | LaneLocked`` is exact and a result needs no wrapper.
    """

    LANE_LOCKED = "locked"


LANE_LOCKED: Final = LaneLocked.LANE_LOCKED


class Stream(abc.ABC, Generic[Item, Result]):
    """One kind of write; items of several streams never share a batch.

    ``patient``: an item waits in memory until the database takes it, however long that is. An item
    of another stream has a caller who waits: it fails at its deadline, or when the database is
    away.

    ``short``: a batch takes little time and many callers wait for it, so the stream gets every
    second batch.

    ``small``: an item is so small that only a slow database takes too long for it.
    """

    name: str
    patient: bool
    short = False
    small = False

    @abc.abstractmethod
    def write(self, connection: psycopg.Connection[Any], items: Sequence[Item]) -> Sequence[Result | LaneLocked]:
        """Write ``items`` in one transaction. Return one result per item, in their order.

        ``LANE_LOCKED`` for an item: it was not written and has to be given to ``write`` again.
        """

    @abc.abstractmethod
    def lane(self, item: Item) -> Hashable:
        """Return the item's lane: items of one lane are written in the order of submission."""

    def wider_lane(self, item: Item) -> Hashable:
        """Return the item's lane, or a wider one: a person with two ids looks like two lanes.

        Where an item is not written that was tried alone, or fails, it holds back those of its wider lane.
        """
        return self.lane(item)

    def owner(self, item: Item) -> Hashable:
        """Return the tenant or channel, so that its large backlog does not delay other owners."""
        return None

    def mend(self, item: Item, error: psycopg.Error) -> Item | None:
        """Return what to write instead of an item that the database refused, or None: it fails."""
        return None


@dataclass(slots=True, eq=False, repr=False)
class Ticket(Generic[Item, Result]):
    """One submitted item. The committer's thread owns it until ``done``, then the caller does.

    ``done(tickets)`` is called in the committer's thread, once per batch for all tickets that share
    it. Each has its ``error`` then, or else its ``result``.
    """

    stream: Stream[Item, Result]
    item: Item
    done: Callable[[list[Ticket[Item, Result]]], None]
    deadline: float  # time of the monotonic clock after which the item fails
    size: int  # bytes in memory; the first ticket of a slice counts for its whole request
    # Wider lanes in which an item of the same request failed; shared by its tickets. Later items of
    # these fail, too: the request is repeated as a whole, and a later item must not be written
    # before an earlier one.
    failed_lanes: set[Hashable]
    about: Any  # whatever the caller needs in ``done``
    lane: Hashable = field(init=False)
    wider_lane: Hashable = field(init=False)
    owner: Hashable = field(init=False)
    result: Result = field(init=False)
    error: Exception | None = field(init=False, default=None)
    tries: int = field(init=False, default=0)  # attempts to write this item alone that were refused
    waits_for_lane: bool = field(init=False, default=False)  # the last attempt found the lane locked

    def __post_init__(self) -> None:
        self.lane, self.owner = self.stream.lane(self.item), self.stream.owner(self.item)
        self.wider_lane = self.stream.wider_lane(self.item)

    def takes(self, result: Result | LaneLocked) -> bool:
        """Keep ``result`` and return True. Return False if it says that the lane is locked."""
        self.waits_for_lane = result is LANE_LOCKED
        if result is not LANE_LOCKED:
            self.result = result
        return not self.waits_for_lane

    def fail(self, error: Exception) -> None:
        """Fail with ``error``, and so close the lane to later items of the request."""
        self.error = error
        self.failed_lanes.add(self.wider_lane)

    def fails(self, now: float) -> bool:
        """Fail and return True if the deadline is over, or an earlier item of the lane failed."""
        if self.wider_lane in self.failed_lanes:
            self.fail(NotStored("an earlier item of its lane could not be stored"))
        elif now >= self.deadline:
            self.fail(NotStored("its lane was locked, or the database was away, until the deadline"))
        else:
            return False
        return True


def as_json(value: Any) -> str:
    """Return ``value`` as the text that a statement reads with ``json_to_recordset``."""
    return msgspec.json.encode(value).decode()
