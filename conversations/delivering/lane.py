"""A lane that the sender has in hand."""

from __future__ import annotations

import collections
import uuid
from dataclasses import dataclass, field

from conversations.contracts import ChannelConfig
from conversations.delivering.limiter import Request
from conversations.delivering.results import Next, Step


@dataclass(slots=True, eq=False)
class Lane:
    """A lane in hand. The sender's thread owns it, except while a stage, commit or call has it."""

    id: int
    probe: bool = False  # try one reply although the channel is paused
    claim: uuid.UUID | None = None  # this process's id as the intent wrote it
    trace: str = ""  # correlation id of the message that the reply answers
    channel: ChannelConfig | None = None
    replies: collections.deque[Next] = field(default_factory=collections.deque)
    read_at: float = 0.0  # monotonic time at which the replies were read: their ages count from then
    slot: int = 0  # the channel of which it holds a slot; 0: none. Only ``Bulkhead`` changes it
    request: Request | None = None  # what the limiter knows of the next reply, or of the one in flight
    in_flight: Next | None = None  # the reply whose intent is written or whose call runs
    result: Step | None = None  # a result to be written together with the next intent
