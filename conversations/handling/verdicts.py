"""Verdicts: what a turn comes to for the head of its lane. Writes nothing; ``turn_stream`` does."""

from __future__ import annotations

import enum
import random
from typing import Any

import msgspec

from conversations import choices, registry, turns
from conversations.contracts import ChannelConfig, Kind, ReplyBody
from conversations.media.opening import Received
from conversations.postgres.storable_text import clean_text

# Failed turns after which a message is parked. Larger: a passing fault parks fewer messages, and
# the conversation waits longer behind one; smaller: parked sooner.
ATTEMPTS = 5
# Longest wait between two attempts, in seconds. Longer: less load on a bot that fails; shorter: its
# messages are handled sooner once it works again.
RETRY_SECONDS = 300.0
# Seconds until a turn runs again that failed for want of a database connection, at least and at
# most. Longer: its person waits; shorter: more turns that wait for a connection in vain.
SHORTAGE_SECONDS = (0.5, 2.0)
# The person reads this after their message was parked, unless the channel has a ``sorry_text``.
SORRY = "Sorry, something went wrong on our side. A colleague will get back to you."


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A lane (conversation), its next message, state, contact: a row of ``fetch_heads.sql``."""

    id: int
    channel_id: int
    tenant_id: int
    chat: str
    user: str
    is_group: bool
    mode: str
    stopped: bool
    suspect: bool
    sequence: int
    epoch: int
    attempts: int
    wait: float | None
    release_in: float | None
    message_id: int | None
    identity: Any
    kind: str | None
    status: str | None
    starts_turn: bool | None
    text: str | None
    payload: Any
    sender: Any
    platform_id: str | None
    late: bool | None
    state: Any
    name: str | None
    username: str | None
    phone: str | None
    email: str | None
    language: str | None
    address: Any
    offered: Any
    offered_by: str | None = None
    asks: bool = False


class Verdict(msgspec.Struct, kw_only=True):
    """A lane as it was read, and as it shall be afterwards. An item of ``commit_turns.sql``."""

    ord: int = -1
    id: int
    channel_id: int
    message_id: int
    sequence: int
    epoch: int
    attempts: int
    expect: str
    status: str
    note: str | None = None
    advance: int = 1
    attempts_after: int = 0
    delay: float | None = None
    mode: str | None = None
    epoch_step: int = 0
    blocked: bool = False
    suspect: bool = False
    state: dict[str, Any] | None = None
    asked: int | None = None
    bot: str | None = None
    version: int = 1
    replies: list[dict[str, Any]] | None = None
    turn: dict[str, Any] | None = None

    @property
    def outcome(self) -> str:
        """The turn's outcome (committed, failed, paused); without a turn the head's new status."""
        return str(self.turn["outcome"]) if self.turn else self.status


class Finished(msgspec.Struct, frozen=True):
    """A verdict to write, with head and channel to judge again if the database refuses it."""

    verdict: Verdict
    head: Head
    channel: ChannelConfig | None = None


class Step(enum.Enum):
    """What the head of a lane asks for."""

    RELEASE = enum.auto()  # nothing to do now
    WAIT = enum.auto()  # numbers for messages that wait for their order, in ``release_in`` seconds
    NUMBER = enum.auto()  # numbers for them now
    PASS = enum.auto()  # go past a head that is settled already
    ADVANCE = enum.auto()  # settle a head that starts no turn
    TURN = enum.auto()  # run the bot


def next_step(head: Head | None, probe: bool) -> Step:
    """Return what a head asks for. ``probe``: one message is tried although its bot is paused."""
    if head is None or head.mode != "bot" or head.stopped:
        return Step.RELEASE
    if head.message_id is None:
        if head.release_in is None:
            return Step.RELEASE
        return Step.WAIT if head.release_in > 0 else Step.NUMBER
    if head.status != "pending":
        return Step.PASS
    if (head.wait or 0) > 0 and not probe:
        return Step.RELEASE
    return Step.TURN if head.starts_turn else Step.ADVANCE


def trace(head: Head) -> str:
    """Return the correlation id of the head's message (``models.Message.trace``)."""
    return bytes(head.identity).hex()[:16]


# ---------------------------------------------------------------- judging


def task_of(head: Head, channel: ChannelConfig) -> turns.Task:
    """Return what the bot gets: message, contact and a copy of the state, which it may change."""
    kind, payload = choices.meant(head.kind or Kind.MESSAGE, head.text or "", head.payload or {}, head.offered,
                                  head.offered_by or "")  # fmt: skip
    message = turns.Incoming(
        id=head.message_id or 0,
        sequence=head.sequence,
        kind=kind,
        text=head.text or "",
        attachments=tuple(msgspec.convert(item, Received) for item in payload.get("attachments", ())),
        sender=head.sender or {},
        platform_id=head.platform_id or "",
        late=bool(head.late),
        **{name: payload.get(name, "") for name in ("payload", "command", "args", "target", "thread")},
        data=payload.get("data", {}),
    )
    state = msgspec.json.decode(msgspec.json.encode(head.state)) if head.state else {}
    return turns.Task(conversation_id=head.id, channel_id=channel.id, bot=channel.bot, message=message,
                      contact=turns.Person.of(head), state=state, platform=channel.platform)  # fmt: skip


def _expected(head: Head) -> dict[str, Any]:
    """Return the lane as it was read: the verdict is written only if that still holds."""
    return {"id": head.id, "channel_id": head.channel_id, "message_id": head.message_id, "sequence": head.sequence,
            "epoch": head.epoch, "attempts": head.attempts, "expect": head.status}  # fmt: skip


def advance(head: Head) -> Verdict:
    """Settle a head that starts no turn (an edit, a reaction): handled, without the bot."""
    return Verdict(**_expected(head), status="handled")


def pass_over(head: Head) -> Verdict:
    """Pass a head that was settled before its turn came: parked, skipped, or missing (a gap)."""
    channel = registry.channel(head.channel_id)
    blocks = head.status == "missing" and channel is not None and channel.options.get("gap_policy") == "block"
    return Verdict(**_expected(head), status=head.status or "", advance=0 if blocks else 1, blocked=blocks)


def success(head: Head, channel: ChannelConfig, output: turns.Output, record: dict[str, Any]) -> Verdict:
    """Return the verdict of a turn that ended well: new state, replies, next number.

    A bot that hands over makes the mode "human" and raises the epoch, which voids older turns.
    ``asked``: which of the replies is the open question now. Writing the state closes an older one.
    """
    adapter = registry.adapter(channel.platform)
    bodies = [part for body in output.replies for part in adapter.split(body)]
    asked = max((place for place, body in enumerate(bodies, 1) if body.choices), default=None)
    handed_over = output.handed_over is not None
    return Verdict(
        **_expected(head),
        status="handled",
        state=output.state if asked or head.asks or output.state != (head.state or {}) else None,
        asked=asked,
        bot=channel.bot,
        replies=[{"author": "bot", "body": body} for body in bodies] or None,
        mode="human" if handed_over else None,
        epoch_step=1 if handed_over else 0,
        note=clean_text(f"handed over: {output.handed_over}", 500) if handed_over else None,
        turn=record,
    )


def void(head: Head) -> Verdict:
    """Return the verdict of a turn that failed for a reason of ours: it runs again, no attempt spent."""
    return Verdict(**_expected(head), status="pending", advance=0, attempts_after=head.attempts,
                   delay=random.uniform(*SHORTAGE_SECONDS))  # fmt: skip


def failure(head: Head, channel: ChannelConfig, record: dict[str, Any], paused: bool) -> Verdict:
    """Return the verdict of a failed turn: try again later, or park the message.

    ``paused``: the bot fails for everybody and is paused; then no attempt is spent. The channel's
    ``parked_policy`` says what follows: a person takes over, the bot goes on, or the lane is
    blocked.
    """
    attempts = head.attempts if paused else head.attempts + 1
    again: dict[str, Any] = {"bot": channel.bot, "turn": record}
    if attempts < ATTEMPTS:
        delay = random.uniform(0.05, min(RETRY_SECONDS, 2.0**attempts))
        return Verdict(**_expected(head), **again, status="pending", advance=0, attempts_after=attempts, delay=delay)
    policy = channel.options.get("parked_policy", "human")
    note = f"the bot failed {attempts} times, last: {record['error_type']} at {record['error_place']}"
    return Verdict(
        **_expected(head),
        status="parked",
        note=clean_text(note, 500),
        advance=0 if policy == "block" else 1,
        blocked=policy == "block",
        mode="human" if policy == "human" else None,
        epoch_step=1 if policy == "human" else 0,
        bot=channel.bot,
        replies=[{"author": "system", "body": ReplyBody(text=channel.options.get("sorry_text") or SORRY)}],
        turn=record,
    )
