"""One lane in the sender's hands."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Sequence
from typing import Any

from conversations.contracts import ChannelConfig
from conversations.delivering.results import Next, Step


class Lane:
    """One lane in this sender's hands."""

    __slots__ = ("channel", "claim", "id", "in_flight", "probe", "read_at", "replies", "result", "slot", "trace")

    def __init__(self, lane: int, probe: bool) -> None:
        self.id, self.probe = lane, probe
        self.claim: uuid.UUID | None = None  # the incarnation whose name the intent bears
        self.trace = ""  # of the message that is being answered
        self.channel: ChannelConfig | None = None
        self.replies: collections.deque[Next] = collections.deque()
        self.read_at = 0.0  # when they were: ages among what was read grow from then on
        self.slot = 0  # the channel that keeps one of its calls for it
        self.in_flight: Next | None = None
        self.result: Step | None = None  # a result that waits for the next intent to ride with it


Event = tuple[str, Sequence[Lane], Any]
