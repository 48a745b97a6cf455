"""How many calls of a channel run at once, and which lanes wait for one to end. For one thread.

A platform that hangs takes its channel's share and no more; and while more than half of all calls run, every channel
has few, so that several that hang leave room for the others.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Generic, TypeVar

CALLS_PER_CHANNEL = 96
CALLS = 768
SCARCE = 4  # calls per channel while more than half of all run
CROWD = 4_096  # lanes of a channel that wait here, twice a sweep's claim; more are left to the sweeper

Lane = TypeVar("Lane")


class Bulkhead(Generic[Lane]):
    """Calls that run, by channel, and lanes that wait, oldest first."""

    def __init__(self) -> None:
        self._running: dict[int, int] = {}
        self._all = 0
        self._waiting: dict[int, collections.deque[Lane]] = {}

    def __bool__(self) -> bool:
        """Whether any call runs."""
        return bool(self._running)

    def room(self, channel: int) -> int:
        """How many more calls of ``channel`` may begin; below zero after its share became smaller."""
        share = CALLS_PER_CHANNEL if self._all < CALLS // 2 else SCARCE if self._all < CALLS else 0
        return share - self._running.get(channel, 0)

    def begin(self, channel: int) -> None:
        self._running[channel] = self._running.get(channel, 0) + 1
        self._all += 1

    def end(self, channel: int) -> None:
        self._all -= 1
        left = self._running.get(channel, 0) - 1
        if left > 0:
            self._running[channel] = left
        else:
            self._running.pop(channel, None)

    def stand_in_line(self, channel: int, lane: Lane) -> int:
        """How many stand before it; -1: the line is full, and it does not stand in it."""
        line = self._waiting.setdefault(channel, collections.deque())
        if len(line) >= CROWD:
            return -1
        line.append(lane)
        return len(line) - 1

    def may_call(self) -> bool:
        """Whether somebody stands in line where there is room."""
        return any(self.room(channel) > 0 for channel in self._waiting)

    def call(self, kept: Mapping[int, int]) -> list[Lane]:
        """Those for whom there is room now, out of their lines; their calls have begun, so that it is there for each.

        ``kept``: room that others will take, by channel.
        """
        called: list[Lane] = []
        for channel, line in list(self._waiting.items()):
            while line and self.room(channel) > kept.get(channel, 0):
                self.begin(channel)
                called.append(line.popleft())
            if not line:
                del self._waiting[channel]
        return called
