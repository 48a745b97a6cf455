"""A lane (conversation) in the handler's hands, and the turn of its head."""

from __future__ import annotations

import dataclasses
import math
import time

from conversations.contracts import ChannelConfig
from conversations.handling.verdicts import Head


class Held:
    """A lane in hand: this process holds its lock and works on it.

    Owned by the stage, thread or loop that works on the lane; the committer hands it back.
    """

    __slots__ = ("announced", "id", "probe", "since", "turns", "wakes")

    def __init__(self, lane: int, probe: bool) -> None:
        self.id, self.probe = lane, probe
        self.hold()

    def hold(self) -> None:
        """Begin a hold: its turns and seconds count from here, and the lane must be announced."""
        self.announced = False  # True: our Worker row lists the lane, so that a crash makes it a suspect
        self.since = time.monotonic()  # HOLD_SECONDS count from then
        self.turns = 0
        self.wakes: int | None = None  # tenant for which the lane is woken once its lock is released


@dataclasses.dataclass(slots=True, eq=False)
class Turn:
    """A bot's work on the head of a lane. Its result counts while ``TurnRunner`` lists this object.

    Owned by the thread or loop that runs it; the watcher of ``TurnRunner`` may strike it off.
    """

    held: Held
    head: Head
    channel: ChannelConfig
    began: float = 0.0  # monotonic time; 0: not yet
    deadline: float = math.inf  # monotonic time at which it has taken too long
    typing_at: float = math.inf  # monotonic time at which the person is shown that we type
    on_loop: bool = False  # it runs on the event loop, or waits for a slot there
    overdue: bool = False  # it took too long, and its next attempt runs in a process of its own
