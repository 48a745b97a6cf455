"""How much may wait to be written: bounded by count and bytes, and shared between owners.

An owner (a tenant) is refused if it would hold more than is still free. Alone, it gets half of the
room; two get a third each. Large requests are refused first, so a small one of another owner finds
a place.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Hashable, Sequence

from conversations.errors import Busy
from conversations.postgres.backlog import AnyTicket

# Items, and bytes of items, that wait in memory, at most; more are refused with ``Busy``. Larger:
# more memory, and longer waits before a request is refused. Smaller: a short interruption of the
# database refuses requests that could have waited.
QUEUED_ITEMS = 5_000
QUEUED_BYTES = 128 * 1024 * 1024


class Room:
    """Counts what waits, by owner. All threads may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: collections.Counter[Hashable] = collections.Counter()
        self._bytes: collections.Counter[Hashable] = collections.Counter()

    def enter(self, tickets: Sequence[AnyTicket], *, may_refuse: bool) -> None:
        """Count tickets that begin to wait. Raises ``Busy`` if there is no room for the first's owner."""
        with self._lock:
            if may_refuse and tickets and self._is_full_for(tickets):
                raise Busy(f"{self._items.total()} items wait to be written")
            for ticket in tickets:
                self._items[ticket.owner] += 1
                self._bytes[ticket.owner] += ticket.size

    def leave(self, tickets: Sequence[AnyTicket]) -> None:
        """Take tickets that are answered off the count, and forget owners without any."""
        with self._lock:
            for ticket in tickets:
                self._items[ticket.owner] -= 1
                self._bytes[ticket.owner] -= ticket.size
                if not self._items[ticket.owner]:
                    del self._items[ticket.owner], self._bytes[ticket.owner]

    def _is_full_for(self, tickets: Sequence[AnyTicket]) -> bool:
        """Return True if their owner would hold as much as is free, in items or in bytes.

        More than half of the room counts as half: an oversized request must find a place, too.
        """
        owner, size = tickets[0].owner, sum(ticket.size for ticket in tickets)
        kinds = ((self._items, len(tickets), QUEUED_ITEMS), (self._bytes, size, QUEUED_BYTES))
        return any(held[owner] + min(more, limit // 2) >= limit - held.total() for held, more, limit in kinds)
