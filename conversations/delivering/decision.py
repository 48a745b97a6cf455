"""What a lane in hand does next: one decision, made from facts. Reads and writes nothing."""

from __future__ import annotations

import enum
from typing import NamedTuple

from conversations import registry
from conversations.contracts import ChannelConfig
from conversations.delivering.lane import Lane
from conversations.delivering.results import SETTLED, Next, Step

# Waits up to this many seconds stay in this process; for longer ones the lane is released, with the
# time in its row. Longer: fewer writes, and more lanes to find again if the process dies.
STAY_SECONDS = 5.0
# Why a reply may not pass the gate (``migrations/sql/gate.sql``) -> words for staff.
GATE = {
    "opted_out": "the person wants no more messages from us",
    "unreachable": "the person cannot be reached since they blocked the bot",
    "no_marketing": "the person does not want marketing messages from us",
    "window": "more than {hours:g} hours since the person's last message: only a template can be sent",
}


class Do(enum.Enum):
    """A decision without values."""

    START = "take a slot, ask the limiter, write the intent"
    WAIT_FOR_SLOT = "stand in line for a slot of its channel"
    WRITE_RESULT = "write the result alone, then read the lane again"
    REQUEUE = "put the reply back that this process lost track of"
    END_WAIT = "write what becomes of a reply of unknown outcome that no status named in time"
    RELEASE = "give up the lane's lock"


class Wait(NamedTuple):
    """Decide again in ``seconds``, with replies that are fetched again."""

    seconds: float


class Refuse(NamedTuple):
    """Settle the reply without sending it."""

    status: str
    reason: str


Decision = Do | Wait | Refuse


class Facts(NamedTuple):
    """What a decision depends on besides the lane itself."""

    stopping: bool = False  # this process ends
    lost: bool = False  # the reply is being sent in our name, and this process does not know of it
    paused: bool = False  # sending is paused for the channel or its tenant
    held: bool = False  # this is a copy of production, which must not write to the people of the original
    slot: bool = True  # the lane has a slot, or its channel has a free one


def decide(lane: Lane, facts: Facts) -> Decision:
    """Return what to do with a lane.

    A result that it holds travels with its next intent. Where none starts, it is written first.
    """
    if not may_wait_for_intent(lane.result):
        return Do.WRITE_RESULT
    decision = _decide_next(lane, facts)
    return decision if decision is Do.START or lane.result is None else Do.WRITE_RESULT


def _decide_next(lane: Lane, facts: Facts) -> Decision:
    """Return what to do with a lane's next reply, whether or not the lane holds a result."""
    if not lane.replies or lane.channel is None:
        return Do.RELEASE
    if facts.lost:
        return Do.REQUEUE
    obstacle = may_start(lane.replies[0], lane.channel, facts, lane.probe)
    if obstacle is None and not facts.slot:
        return Do.WAIT_FOR_SLOT
    return obstacle or Do.START


def may_start(reply: Next, channel: ChannelConfig, facts: Facts, probe: bool) -> Decision | None:
    """Return None if a reply may be sent now, else what to do instead. There is no other list.

    What storing and staff may change meanwhile is asked again by the statement that writes the
    intent. ``probe``: the lane is tried although its channel is paused.
    """
    if reply.status == "unknown" and reply.wait is not None and reply.wait <= 0 and not facts.stopping:
        return Do.END_WAIT
    if reply.status != "pending":
        return Do.RELEASE
    if refused := refusal(reply, channel):
        return refused
    if facts.stopping or facts.held or not channel.active or (facts.paused and not probe):
        return Do.RELEASE
    wait = 0.0 if probe else reply.wait or 0.0
    if wait > 0:
        return Wait(wait) if wait <= STAY_SECONDS else Do.RELEASE
    # Released, so that the wake of a status that ends the wait finds the lane free.
    return Do.RELEASE if (reply.phone_wait or 0.0) > 0 else None


def refusal(reply: Next, channel: ChannelConfig) -> Refuse | None:
    """Return how a pending reply is settled that must not be sent; else None."""
    if reply.author == "bot" and reply.sequence <= reply.cancelled_through:
        return Refuse("cancelled", "a person took over before it started")
    if reply.expired:
        return Refuse("expired", "its time passed before it could be sent")
    if reply.refusal:
        hours = registry.adapter(channel.platform).window_seconds / 3600
        return Refuse("parked", GATE[reply.refusal].format(hours=hours))
    return None


def may_wait_for_intent(step: Step | None) -> bool:
    """Return True if a result may be written together with the next intent.

    False if it must be written first: the reply is not settled yet, the gate may stop the next one
    because of it, or the next one waits until this one is delivered.
    """
    return step is None or (step.status in SETTLED and not step.stops and step.phone_wait is None)
