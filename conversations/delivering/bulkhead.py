"""Slots for calls: how many calls a channel may run at once, and which lanes wait for a slot. For
one thread.

A platform that hangs takes its channel's share of the slots and no more. While more than half of
all slots are taken, every channel's share is small, so that several platforms that hang leave slots
for others.
"""

from __future__ import annotations

import collections

from conversations.delivering.lane import Lane

# Calls at once to one channel. Larger: a fast channel sends more, and one that hangs holds more
# threads; smaller: the reverse.
CALLS_PER_CHANNEL = 96
# Calls at once in this process, each on its own thread. Larger: more sends in flight, with more
# memory; smaller: a slow platform delays other channels sooner.
CALLS = 768
# Calls at once per channel while half of CALLS run. Larger: fewer channels that hang take all
# slots; smaller: healthy channels are slower meanwhile.
CALLS_WHEN_BUSY = 4
# Lanes (conversations) of one channel that wait here for a slot; the sweeper brings the rest.
# Larger: a channel that hangs holds more memory; smaller than what a sweep claims: lanes go back
# and forth between sweeper and sender.
WAITING_LANES = 4_096


class Bulkhead:
    """Taken slots by channel, and the lanes that wait for a slot, oldest first."""

    def __init__(self) -> None:
        self._running: collections.Counter[int] = collections.Counter()  # by channel: slots taken
        self._all = 0  # slots taken by all channels
        self._waiting: dict[int, collections.deque[Lane]] = {}  # by channel

    def __bool__(self) -> bool:
        """Return True if a slot is taken."""
        return self._all > 0

    def free_slots(self, channel: int) -> int:
        """Return how many more calls a channel may start; negative after its share shrank."""
        share = CALLS_PER_CHANNEL if self._all < CALLS // 2 else CALLS_WHEN_BUSY if self._all < CALLS else 0
        return share - self._running[channel]

    def take(self, lane: Lane, channel: int) -> None:
        """Take a slot, unless the lane has one. The caller has asked ``free_slots``."""
        if not lane.slot:
            lane.slot = channel
            self._running[channel] += 1
            self._all += 1

    def free(self, lane: Lane) -> None:
        """Give the lane's slot back to its channel, if it has one."""
        if lane.slot:
            self._running[lane.slot] -= 1
            self._all -= 1
            lane.slot = 0

    def enqueue(self, lane: Lane, channel: int) -> int:
        """Let a lane wait for a slot. Return how many wait before it; -1: too many, it was not added."""
        waiting = self._waiting.setdefault(channel, collections.deque())
        if len(waiting) >= WAITING_LANES:
            return -1
        waiting.append(lane)
        return len(waiting) - 1

    def start_waiting(self) -> list[Lane]:
        """Take a slot for each waiting lane that can have one, oldest first; return these lanes."""
        started: list[Lane] = []
        for channel, waiting in list(self._waiting.items()):
            while waiting and self.free_slots(channel) > 0:
                self.take(waiting[0], channel)
                started.append(waiting.popleft())
            if not waiting:
                del self._waiting[channel]
        return started
