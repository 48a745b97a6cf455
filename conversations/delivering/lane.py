"""A lane that the sender has in hand, and the events about lanes."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Sequence
from typing import Any

from conversations.contracts import ChannelConfig
from conversations.delivering.results import Next, Step


class Lane:
    """A lane in hand.

    Owned by the sender's thread, except while a stage, a commit or a call works on it.
    """

    __slots__ = ("channel", "claim", "id", "in_flight", "probe", "read_at", "replies", "result", "slot", "trace")

    def __init__(self, lane: int, probe: bool) -> None:
        self.id, self.probe = lane, probe
        self.claim: uuid.UUID | None = None  # this process's id as the intent wrote it
        self.trace = ""  # correlation id of the message that the reply answers
        self.channel: ChannelConfig | None = None
        self.replies: collections.deque[Next] = collections.deque()
        self.read_at = 0.0  # monotonic time at which the replies were read: their ages count from then
        self.slot = 0  # the channel of which it holds a slot; 0: none
        self.in_flight: Next | None = None  # the reply whose intent is written or whose call runs
        self.result: Step | None = None  # a result to be written together with the next intent


# What happened; to which lanes; a value, such as rows. See sender.Sender._run_once.
Event = tuple[str, Sequence[Lane], Any]
