"""Which tickets make the next batch. Pure: no thread, no database, no clock of its own.

**Invariant:** an item that waits holds back the later items of its lane.

Fairness: streams take turns, and a short one gets every second batch. Within a stream, an owner
with a large backlog is left out of every second batch while other owners wait.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Hashable
from typing import Any

from conversations.postgres.stream import Stream, Ticket

# Items of one transaction, at most. Larger: rows stay locked for longer, and a batch that fails
# costs more, since its items are then written one by one. Smaller: more commits under load.
BATCH = 256
# Items. When more of one owner wait, the other owners' items get the next batch to themselves.
# Larger: an owner waits longer behind another one's backlog. Smaller: ordinary load is split into
# more, smaller batches.
LARGE_BACKLOG = 16

AnyStream = Stream[Any, Any]
AnyTicket = Ticket[Any, Any]


class Backlog:
    """The tickets that wait, by stream. Owned by the committer's thread."""

    def __init__(self) -> None:
        self._waiting: dict[AnyStream, collections.deque[AnyTicket]] = {}  # the longest without a batch first
        self._last_was_short = False
        self._owners_left_out: set[AnyStream] = set()  # streams whose last batch left a large backlog waiting

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, ticket: AnyTicket) -> None:
        self._waiting.setdefault(ticket.stream, collections.deque()).append(ticket)

    def requeue(self, tickets: list[AnyTicket]) -> None:
        """Put tickets of the last batch back, in their order, in front of their stream."""
        if tickets:
            self._waiting.setdefault(tickets[0].stream, collections.deque()).extendleft(reversed(tickets))

    def take(self, now: float) -> tuple[list[AnyTicket], list[AnyTicket]]:
        """Return the tickets of the next batch, and tickets that failed while they waited.

        1. Choose the stream whose turn it is.
        2. Take its tickets in their order, ``BATCH`` at most. Those whose lane was locked at the last
           attempt don't count: they must not keep others out of the batch. All of a lane are tried
           again together: a person with two ids looks like two lanes, and what of one stayed behind
           would be overtaken by the other's. Besides each lane's first, ``BATCH`` at most are taken.
        3. Leave passed tickets where they were. Nothing else of their lanes joins this batch: it
           would overtake them.
        """
        if not self._waiting:
            return [], []
        stream = self._next_stream()
        waiting = self._waiting.pop(stream)
        left_out = self._owners_to_leave_out(stream, waiting)
        batch: list[AnyTicket] = []
        failed: list[AnyTicket] = []
        passed: list[AnyTicket] = []
        closed_lanes: set[Hashable] = set()
        locked_lanes: set[Hashable] = set()
        size = places = BATCH
        while waiting and len(batch) < size:
            ticket = waiting.popleft()
            again = ticket.waits_for_lane and ticket.lane in locked_lanes
            if ticket.fails(now):
                failed.append(ticket)
            elif ticket.owner in left_out or ticket.lane in closed_lanes or (again and not places):
                closed_lanes.add(ticket.lane)  # the later items of a lane can have another owner
                passed.append(ticket)
            else:
                places -= again
                if ticket.waits_for_lane:
                    locked_lanes.add(ticket.lane)
                    size += 1
                batch.append(ticket)
        waiting.extendleft(reversed(passed))
        if waiting:
            self._waiting[stream] = waiting
        return batch, failed

    def _next_stream(self) -> AnyStream:
        """Return the stream that has waited longest. Short streams alternate with the others."""
        longest = next(iter(self._waiting))
        stream = next((each for each in self._waiting if each.short != self._last_was_short), longest)
        self._last_was_short = stream.short
        return stream

    def _owners_to_leave_out(self, stream: AnyStream, waiting: Collection[AnyTicket]) -> Collection[Hashable]:
        """Return the owners with a large backlog, if others wait, too.

        Of a stream, owners are never left out of two batches in a row, so everybody makes progress.
        """
        if len(waiting) <= LARGE_BACKLOG or stream in self._owners_left_out:
            self._owners_left_out.discard(stream)
            return ()
        counts = collections.Counter(ticket.owner for ticket in waiting)
        large = {owner for owner, count in counts.items() if count > LARGE_BACKLOG}
        if not large or len(large) == len(counts):
            return ()
        self._owners_left_out.add(stream)
        return large
