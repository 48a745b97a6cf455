"""What a call's outcome means for a reply: the result to write. Reads and writes nothing."""

from __future__ import annotations

import random
import uuid
from typing import Any, NamedTuple

import msgspec

from conversations import registry
from conversations.contracts import (
    ChannelConfig,
    Deferred,
    Failed,
    OutboundReply,
    Outcome,
    Rejected,
    ReplyBody,
    Scope,
    Sent,
    Unknown,
)
from conversations.postgres.storable_text import clean_text

# Failed attempts after which a reply is parked. Larger: a long outage parks fewer replies, and the
# conversation waits longer; smaller: parked sooner.
ATTEMPTS = 10
# Longest wait between two attempts, in seconds. Longer: less load on a platform that fails;
# shorter: replies go out sooner once it works again.
RETRY_SECONDS = 300.0
# Bounds for the wait that a platform asks for (429), in seconds. A lower first one: a platform that
# says 0 is called in a tight loop. A higher second one: a nonsensical wait stops a chat for longer.
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.05, 86_400.0

# Seconds from an intent for which a reply of unknown outcome waits for a status that names it by its
# key, where the platform's statuses do. Longer: fewer people get a reply twice whose status is late,
# and a reply that was lost comes later; shorter: the reverse.
STATUS_SECONDS = 20.0
# Seconds for which the reply behind one with media waits until that one is delivered, where the
# platform reports it; a channel's ``wait_for_s`` replaces it. Longer: more slow pictures keep their
# place, and people whose phone is off wait longer; shorter: the reverse.
PHONE_SECONDS = 5.0

# Statuses of a reply that nothing more is done with: the lane goes on with the next one.
SETTLED = frozenset({"sent", "parked", "cancelled", "expired", "failed"})

Claim = uuid.UUID | None  # the claim of the intent whose result is written; None: there was none
NotSent = Failed | Unknown


class Next(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``fetch_replies.sql``: a lane (conversation), its reply, and the message answered.

    ``id`` is the conversation's; ``reply_id`` is None for a lane with nothing left. ``refusal``: why
    the gate stops it, a word of ``decision.GATE``; None if it may go out. ``answers`` is
    the platform's id of the message that the reply answers. ``intent_number``: of the reply's
    newest intent. ``sent_ago``: seconds since the lane's last send; ``wait``: seconds until the
    reply's next attempt; ``age``: seconds since it was made. ``phone_wait``: seconds until the lane no
    longer waits for the delivery of its last reply.
    """

    id: int
    channel_id: int
    chat: str
    user: str
    is_group: bool
    address: Any
    refusal: str | None
    cancelled_through: int
    sent_ago: float | None
    reply_id: int | None
    sequence: int
    author: str
    status: str
    attempts: int
    intent_number: int
    wait: float | None
    expired: bool
    key: uuid.UUID
    body: Any
    claimed_by: uuid.UUID | None
    age: float
    answers: str | None
    identity: Any
    phone_wait: float | None = None


class Step(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A result, an intent, or both, of one lane. An item of ``commit_sends.sql``.

    ``number``: of the intent whose result this is. ``intent_number``: of the intent before this one.
    ``stops``: what the platform refuses besides this reply, a ``Scope``; ``window_s``: the seconds
    of the platform's window. Both are for ``stop_lanes.sql``.
    ``phone_wait``: seconds for which the next reply waits until this one is delivered: the one whose
    intent this is, or else the one whose result it is, which then travels with no intent.
    """

    ord: int = -1
    id: int
    channel_id: int
    claim: str | None = None
    reply_id: int | None = None
    sequence: int | None = None
    expect: str | None = None
    number: int | None = None
    attempts: int | None = None
    status: str | None = None
    attempts_after: int | None = None
    delay: float | None = None
    platform_id: str | None = None
    error: str | None = None
    stops: str | None = None
    window_s: float | None = None
    phone_wait: float | None = None
    new_chat: str | None = None
    intent_claim: str | None = None
    intent_id: int | None = None
    intent_sequence: int | None = None
    intent_number: int | None = None


class Written(NamedTuple):
    """What was written of a step.

    ``more``: the lane has replies behind the one with the result. ``begun_at``: monotonic time
    before the transaction began.
    """

    result: bool
    intent: bool
    status: str
    more: bool
    begun_at: float

    def is_done(self) -> bool:
        """Return True if the lane has no more replies. A later one brings a wake of its own."""
        return self.result and self.status in SETTLED and not self.more


NOTHING_WRITTEN = Written(False, False, "", False, 0.0)


# ---------------------------------------------------------------- judging outcomes


def judge(reply: Next, claim: Claim, channel: ChannelConfig, outcome: Outcome, paused: bool, took: float = 0.0) -> Step:
    """Return the result that a call's outcome means for the reply.

    ``paused``: the channel is paused, so that a failure spends no attempt. ``took``: seconds since
    the intent.
    """
    attempts, number = reply.attempts + 1, reply.intent_number + 1  # as the intent left them
    sending = msgspec.structs.replace(reply, attempts=attempts, intent_number=number, status="sending")
    match outcome:
        case Sent():
            wait = phone_wait(reply, channel)
            return result(sending, claim, "sent", platform_id=clean_text(outcome.platform_id, 300), phone_wait=wait)
        case Deferred():
            delay = wait_seconds(outcome)
            return result(sending, claim, "pending", attempts_after=reply.attempts, delay=delay, error=outcome.reason)
        case Rejected(new_chat=new_chat) if new_chat and sending.attempts < ATTEMPTS:
            return result(sending, claim, "pending", delay=0.0, error=outcome.reason, new_chat=new_chat)
        case Rejected(scope=Scope.CHANNEL, new_chat=""):
            return result(sending, claim, "pending", attempts_after=reply.attempts, delay=1.0, error=outcome.reason)
        case Rejected(reason=reason, scope=scope):
            window_s = registry.adapter(channel.platform).window_seconds if scope is Scope.WINDOW else None
            stops = None if scope is Scope.REPLY else scope.value
            return result(sending, claim, "parked", error=reason, stops=stops, window_s=window_s)
        case _:
            return retry(sending, claim, channel, outcome, paused, took)


def retry(reply: Next, claim: Claim, channel: ChannelConfig, outcome: NotSent, paused: bool, took: float = 0.0) -> Step:
    """Return the result of a failed or unknown attempt: pending again, parked, or unknown.

    Unknown, where the platform would not recognise a repeated send: first a status may say what
    became of this one, where the platform's statuses name replies by our key. ``paused``: no attempt
    is spent. ``took``: seconds since the intent.
    """
    spent = reply.attempts - 1 if paused else reply.attempts
    delay = random.uniform(0.1, min(RETRY_SECONDS, 2.0**spent))
    adapter = registry.adapter(channel.platform)
    if isinstance(outcome, Unknown) and adapter.reports_key and reply.age > adapter.key_life(channel):
        wait = max(delay, STATUS_SECONDS - took)
        return result(reply, claim, "unknown", attempts_after=spent, delay=wait, error=outcome.reason)
    return _try_again(reply, claim, channel, outcome, spent, delay)


def unreported(reply: Next, channel: ChannelConfig) -> Step:
    """Return the result of a reply of unknown outcome that no status named in time."""
    outcome = Unknown(reason="its answer was lost, and no status says that it was taken")
    return _try_again(reply, None, channel, outcome, reply.attempts, 0.0)


def _try_again(reply: Next, claim: Claim, channel: ChannelConfig, outcome: NotSent, spent: int, delay: float) -> Step:
    """Return the result of an attempt that ended without success: pending again, parked, or unknown.

    Unknown, where the channel's ``unknown_policy`` is "ask" and the platform would not recognise a
    repeated send: staff decide whether the person got the reply.
    """
    if isinstance(outcome, Unknown) and channel.options.get("unknown_policy", "resend") == "ask":
        life = registry.adapter(channel.platform).key_life(channel)
        if reply.age > life:
            # A platform with keys names the reply by its key in a later status.
            return result(reply, claim, "unknown", error=outcome.reason, platform_id=str(reply.key) if life else None)
    if spent >= ATTEMPTS:
        return result(reply, claim, "parked", error=f"tried {spent} times; last: {outcome.reason}")
    return result(reply, claim, "pending", attempts_after=spent, delay=delay, error=outcome.reason)


def phone_wait(reply: Next, channel: ChannelConfig) -> float | None:
    """Return for how many seconds the next reply waits until this one is delivered; None: it does not.

    Only where the platform delivers in any order and reports it. Option ``wait_for``: "sent" waits
    for no delivery, "delivered" for that of each reply, neither for that of replies with media.
    """
    wait_for, seconds = channel.options.get("wait_for"), channel.options.get("wait_for_s", "")
    has_media = any(part.get("media") for part in (reply.body, reply.body.get("template") or {}))
    waits = wait_for == "delivered" or (wait_for != "sent" and has_media)
    if not waits or not registry.adapter(channel.platform).reports_delivery:
        return None
    return (PHONE_SECONDS if seconds == "" else float(seconds)) or None


def wait_seconds(outcome: Deferred) -> float:
    """Return the seconds that the platform asked for, between 50 ms and a day."""
    return min(max(SHORTEST_WAIT_SECONDS, outcome.seconds), LONGEST_WAIT_SECONDS)  # NaN: the shortest


def result(reply: Next, claim: Claim, status: str, *, error: str | None = None, **more: Any) -> Step:
    """Return the step that writes ``status``, only if the reply is still as ``reply`` says.

    ``more``: other fields of ``Step``. What is left out stays as it is.
    """
    return Step(
        id=reply.id,
        channel_id=reply.channel_id,
        claim=str(claim) if claim else None,
        reply_id=reply.reply_id,
        sequence=reply.sequence,
        expect=reply.status,
        number=reply.intent_number,
        attempts=reply.attempts,
        status=status,
        error=clean_text(error, 300) if error is not None else None,
        **more,
    )


def outbound(reply: Next) -> OutboundReply:
    """Return what the adapter sends in this attempt.

    ``key`` is the same in each attempt, so that a platform may recognise a repeated send.
    """
    return OutboundReply(
        key=str(reply.key),
        chat=reply.chat,
        user=reply.user,
        address=reply.address or {},
        body=msgspec.convert(reply.body, ReplyBody),
        attempt=reply.attempts + 1,
        conversation_id=reply.id,
        sequence=reply.sequence,
        in_answer_to=reply.answers or "",
    )
