"""The verbs of staff: what a person may do to a conversation, a reply, a pause or a quarantined item.

Each verb is one transaction in one pipeline: lock the lane if it is still as the person saw it, act, write the audit
entry; after COMMIT, wake. A turn that was computed before cannot undo a verb, because the verb bumps the epoch or takes
a number. Callers ask ``access`` first: the names of these functions are the actions of ``access.LEAST``.

**Invariant:** a verb that comes too late changes nothing and raises ``LaneMoved``, which says what is there now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import psycopg
from django.contrib.auth.models import User
from django.db import connection, transaction

from conversations import crypto, installation, registry
from conversations.contracts import ReplyBody, Struct
from conversations.errors import Busy, CoreError, LaneMoved
from conversations.models import Audit, Channel, Conversation, Message, Quarantine, Reply
from conversations.postgres import database
from conversations.postgres.database import Row, Statement
from conversations.postgres.sql_files import sql
from conversations.postgres.storable_text import clean_text
from conversations.waking import wake

# Attempts at a transaction while the lane is locked; each waits for lock_timeout (500 ms). Larger:
# the page waits longer. Smaller: staff are told more often that the conversation is busy.
TRIES = 3
# Longest note or reason; the rest is cut off. Larger: longer rows in the audit.
NOTE_CHARACTERS = 2_000
# Longest answer of a person; a longer one is refused. Larger: one answer becomes more replies.
ANSWER_CHARACTERS = 20_000
# Most replays of one message. Larger: ``next_replay`` looks up more identities for each page.
REPLAYS = 64
# Values for ``lock.sql`` that accept a lane in any state. An act replaces those that it depends on.
ANYTHING = {"epoch": None, "next_sequence": None, "mode": None, "paused": None}

Result = TypeVar("Result")
Statements = dict[str, Statement]
Rows = dict[str, list[Row]]


class NotAnswered(CoreError):
    """Staff wanted answered messages to be skipped, and nobody had answered them."""

    def __str__(self) -> str:
        return "nobody has written since these messages came: leave them to the bot, or skip them with a reason"


class Seen(Struct, frozen=True, kw_only=True):
    """The lane as the page showed it. ``epoch`` changes with each act of a person, ``next_sequence`` with the head."""

    conversation: int
    epoch: int
    next_sequence: int
    last_sequence: int = 0  # the newest message that the page showed

    def lane(self, **more: Any) -> dict[str, Any]:
        """Return what must still hold for an act on who answers: nobody of staff acted meanwhile."""
        return {"conversation": self.conversation, "epoch": self.epoch, **more}

    def head(self) -> dict[str, Any]:
        """Return what must still hold for an act on the head: the same message is next."""
        return self.lane(next_sequence=self.next_sequence)


# ---------------------------------------------------------------- the head of the lane


def retry(seen: Seen, staff: User) -> None:
    """Try the head again at once, with all its attempts."""
    _act(seen.head(), staff, "retry", {"retry": _sql("retry")}, subject=f"message {seen.next_sequence}")


def skip(seen: Seen, staff: User, note: str) -> None:
    """Pass over the head for good; the next message is due."""
    _pass_head(seen, staff, "skip", note, status=Message.Status.SKIPPED, statuses=["pending", "parked", "missing"])


def park(seen: Seen, staff: User, note: str) -> None:
    """Set the head aside, to be unparked later; the next message is due."""
    _pass_head(seen, staff, "park", note, status=Message.Status.PARKED, statuses=["pending"])


def _pass_head(seen: Seen, staff: User, verb: str, note: str, *, status: str, statuses: list[str]) -> None:
    """Settle the head as ``status`` (skipped or parked), so that the next message is due.

    ``statuses`` are those that the head may have; with any other, nothing changes.
    """
    written = f"{status} by {staff.get_username()}: {_note(note)}"
    statement = _sql("pass", status=status, note=written, statuses=statuses)
    _act(seen.head(), staff, verb, {"pass": statement}, subject=f"message {seen.next_sequence}", reason=note)


# ---------------------------------------------------------------- messages that were passed


def unpark(seen: Seen, staff: User, message: Message) -> int:
    """Bring a parked message back, once, and return its number.

    If the lane waits for it (it is the head), it is tried again in its place; else a copy goes
    to the tail.
    """
    if message.sequence == seen.next_sequence:
        retry(seen, staff)
        return seen.next_sequence
    identity = _copy_identity(message, "u:")
    statement = _sql("replay", message=message.pk, identity=identity, statuses=["parked"], unpark=True)
    return _append_copy(staff, "unpark", message, statement)


def replay(staff: User, message: Message, number: int) -> int:
    """Put a copy of a passed message at the tail, as its replay ``number``.

    Return the copy's own number in the lane.
    """
    if not 1 <= number <= REPLAYS:
        raise LaneMoved(f"a message is replayed {REPLAYS} times at most")
    identity = _copy_identity(message, f"r:{number}")
    statuses = ["handled", "skipped"]
    statement = _sql("replay", message=message.pk, identity=identity, statuses=statuses, unpark=False)
    return _append_copy(staff, "replay", message, statement)


def next_replay(message: Message) -> int:
    """Return the number of the next replay of ``message``. A form that is sent twice replays once."""
    identities = {_copy_identity(message, f"r:{number}"): number for number in range(1, REPLAYS + 1)}
    found = Message.objects.filter(identity__in=list(identities)).values_list("identity", flat=True)
    taken = {identities[bytes(identity)] for identity in found}
    return next(number for number in range(1, REPLAYS + 2) if number not in taken)


def _copy_identity(message: Message, how: str) -> bytes:
    """Return the identity of a copy of ``message``.

    The same message and ``how`` (unparked, or which replay) give the same identity, and identities
    are unique: a form that is sent twice makes one copy.
    """
    return crypto.keyed_hash(installation.identity_key(), bytes(message.identity), how)


def _append_copy(staff: User, verb: str, message: Message, statement: Statement) -> int:
    """Append the copy of a message and return its number.

    The epoch is not compared: a new number at the tail disturbs no other act.
    """
    lane = {"conversation": message.conversation_id}
    rows = _act(lane, staff, verb, {"copy": statement}, subject=f"message {message.sequence}")
    return int(rows["copy"][0][1])


# ---------------------------------------------------------------- who answers


def take_over(seen: Seen, staff: User, reason: str = "") -> None:
    """Let a person answer from now on; replies that the bot has not begun to send become drafts."""
    _act(seen.lane(mode="bot"), staff, "take_over", _take_over_steps(staff), reason=reason)


def answer(seen: Seen, staff: User, text: str, *, taking_over: bool = False) -> None:
    """Write a person's reply.

    With ``taking_over``, take over from the bot in the same transaction, so that the bot cannot
    answer in between.
    """
    bodies = _bodies(seen.conversation, text)
    statement = _sql("answer", bodies=msgspec.json.encode(bodies).decode(), staff=staff.pk)
    if taking_over:
        steps = {**_take_over_steps(staff), "took": _audit(staff, "take_over"), "answer": statement}
        _act(seen.lane(mode="bot"), staff, "answer", steps)
    else:
        _act(seen.lane(mode="human"), staff, "answer", {"answer": statement})


def hand_back(seen: Seen, staff: User, *, skip_answered: bool) -> int:
    """Give the conversation back to the bot. Return how many messages are skipped as answered.

    With ``skip_answered`` the messages that the page showed and a person answered are skipped; the others go to the
    bot. Raises ``NotAnswered`` where nobody answered any of them.
    """
    steps = {
        "release": _sql("release", everything=skip_answered),
        "back": _sql("hand_back", skip=skip_answered, seen_last=seen.last_sequence),
        "assign": _sql("assign", assignee=None),
    }
    reason = "answered messages are skipped" if skip_answered else "left to the bot"
    rows = _act(seen.lane(mode="human"), staff, "hand_back", steps, reason=reason, refused=NotAnswered)
    return int(rows["back"][0][1])


def _take_over_steps(staff: User) -> Statements:
    """Return the statements that stop the bot, make its unsent replies drafts and assign ``staff``."""
    return {
        "release": _sql("release", everything=True),
        "take over": _sql("take_over"),
        "replies": _sql("move_replies"),
        "assign": _sql("assign", assignee=staff.pk),
    }


def _bodies(conversation_id: int, text: str) -> list[ReplyBody]:
    """Return the answer in the parts that its platform takes. Raises ``ValueError`` where it is empty or too long."""
    text = clean_text(text.replace("\r\n", "\n").strip())
    if not text:
        raise ValueError("an answer needs words")
    if len(text) > ANSWER_CHARACTERS:
        raise ValueError(f"an answer has {ANSWER_CHARACTERS:,} characters at most")
    platform = Conversation.objects.values_list("channel__platform", flat=True).get(pk=conversation_id)
    return registry.adapter(platform).split(ReplyBody(text=text))


# ---------------------------------------------------------------- the lane as a whole


def wake_up(conversation_id: int, staff: User) -> None:
    """Make the lane due now. Retry times stay."""
    _act({"conversation": conversation_id}, staff, "wake", {"wake": _sql("wake")})


def pause(conversation_id: int, staff: User, reason: str) -> None:
    """Stop the bot in this conversation. Replies that are written already still go out."""
    lane = {"conversation": conversation_id, "paused": False}
    _act(lane, staff, "pause", {"pause": _sql("pause", paused=True)}, reason=reason)


def resume(conversation_id: int, staff: User) -> None:
    """End a pause of this conversation; the bot goes on where it stopped."""
    lane = {"conversation": conversation_id, "paused": True}
    _act(lane, staff, "resume", {"resume": _sql("pause", paused=False)})


# ---------------------------------------------------------------- replies that wait for a person


def decide_unknown_reply(reply: Reply, staff: User, *, sent: bool) -> None:
    """Settle a reply of which nobody knows whether it arrived: it did, or it is sent again.

    It is sent with the same key. A bot's reply from before a take-over becomes a draft instead.
    """
    statement = _sql("decide_reply", reply=reply.pk, sent=sent)
    _act_on_reply(reply, staff, "decide_sent" if sent else "decide_resend", statement)


def resend_reply(reply: Reply, staff: User) -> None:
    """Send the same words as a new reply of this person, at the tail."""
    statuses = ["parked", "failed", "expired"]
    _act_on_reply(reply, staff, "resend", _sql("resend_reply", reply=reply.pk, statuses=statuses, staff=staff.pk))


def cancel_reply(reply: Reply, staff: User, note: str) -> None:
    """Cancel a reply that has not started, or take a refused one off the list of staff."""
    written = f"set aside by {staff.get_username()}: {_note(note)}"
    statement = _sql("cancel_reply", reply=reply.pk, statuses=["pending", "parked", "failed"], note=written)
    _act_on_reply(reply, staff, "cancel", statement, reason=note)


def _act_on_reply(reply: Reply, staff: User, verb: str, statement: Statement, reason: str = "") -> None:
    """Run ``statement`` for one reply, and make the next reply due if this one is settled."""
    steps = {"reply": statement, "replies": _sql("move_replies")}
    _act({"conversation": reply.conversation_id}, staff, verb, steps, subject=f"reply {reply.sequence}", reason=reason)


# ---------------------------------------------------------------- beyond one lane


def start_pause(scope: str, target: str, stops: str, staff: User, reason: str) -> None:
    """Stop handling or sending of a whole channel, bot or tenant, until staff end it."""
    key = {"scope": scope, "target": target, "stops": stops}
    statement = _sql("start_pause", **key, staff=staff.pk, reason=_note(reason))
    if not _commit({"start": statement})["start"]:
        raise LaneMoved("it changed meanwhile: staff have stopped this already")


def end_pause(pause_id: int, since: dt.datetime | None, staff: User, reason: str = "") -> None:
    """End the pause that began at ``since``; the sweeper wakes the lanes that it stopped.

    A pause that began after the page was loaded is not ended.
    """
    statement = _sql("end_pause_by_staff", pause=pause_id, since=since, staff=staff.pk, reason=_note(reason))
    if not _commit({"end": statement})["end"]:
        raise LaneMoved("it changed meanwhile: this pause ended, or another one began")


def set_credentials(channel: Channel, values: Mapping[str, str], staff: User) -> None:
    """Write credentials by name; an empty value removes one.

    Ends a pause of sending, which wrong credentials may have caused.
    """
    with transaction.atomic(durable=True):
        row = Channel.objects.select_for_update().get(pk=channel.pk)
        row.set_credentials(values)
        row.save(update_fields=["sealed"])
        _note_channel(row, staff, "set_credentials", changes=dict.fromkeys(values))
    ended = {"scope": "channel", "target": str(channel.pk), "stops": "sending"}
    _commit({"end": (sql("end_pause"), ended)})
    registry.forget_channels()


def set_active(channel: Channel, active: bool, staff: User, reason: str) -> None:
    """Switch a channel on or off. While it is off, messages are stored and lanes wait."""
    with transaction.atomic(durable=True):
        changed = Channel.objects.filter(pk=channel.pk, active=not active).update(active=active)
        if not changed:
            raise LaneMoved("it changed meanwhile: somebody has done that already")
        changes = {"active": [not active, active]}
        _note_channel(channel, staff, "switch_on" if active else "switch_off", reason, changes=changes)
    registry.forget_channels()


def _note_channel(
    channel: Channel, staff: User, verb: str, reason: str = "", *, changes: Mapping[str, list[Any] | None]
) -> None:
    """Write the audit entry of a change to a channel, in the caller's transaction."""
    Audit.objects.create(
        staff=staff,
        verb=verb,
        tenant_id=channel.tenant_id,
        subject=f"channel {channel.public_id}",
        reason=_note(reason),
        changes=changes,
    )


def settle_quarantine(item: Quarantine, staff: User, note: str) -> None:
    """Settle a quarantined item; its bytes are kept."""
    statement = _sql("settle_quarantine", item=item.pk, staff=staff.pk, reason=_note(note))
    if not _commit({"settle": statement})["settle"]:
        raise LaneMoved("it changed meanwhile: somebody has settled this item")


def note_reading(conversation_id: int, staff: User) -> None:
    """Audit that a person read a conversation, once an hour."""
    _commit({"read": _sql("note_reading", conversation=conversation_id, staff=staff.pk)})


# ---------------------------------------------------------------- one transaction


def _act(
    expected: Mapping[str, Any],
    staff: User,
    verb: str,
    steps: Statements,
    *,
    subject: str = "",
    reason: str = "",
    refused: type[CoreError] | None = None,
) -> Rows:
    """Lock the lane where ``expected`` holds, run ``steps``, audit, COMMIT and wake.

    Returns the rows of each step. Raises ``LaneMoved`` where nothing was done; ``refused``, if
    given, where the lane was as expected all the same.
    """
    lock = _sql("lock", **{**ANYTHING, **expected})
    rows = _commit({"lock": lock, **steps, "audit": _audit(staff, verb, subject, reason)})
    if not rows["audit"]:
        if rows["lock"] and refused:
            raise refused
        raise LaneMoved(f"it changed meanwhile: {_present_state(expected['conversation'])}")
    _wake(expected["conversation"], tenant_id=rows["lock"][0][2])
    return rows


def _audit(staff: User, verb: str, subject: str = "", reason: str = "") -> Statement:
    """Return the statement that writes the audit entry.

    It writes none, and returns no row, if a step before it found nothing to do. So ``_act``
    learns it.
    """
    return _sql("audit", staff=staff.pk, verb=verb, subject=subject, reason=_note(reason))


def _wake(conversation_id: int, tenant_id: int) -> None:
    """Publish hints for handling and sending.

    Without them the lane waits for the sweeper, some seconds.
    """
    wake.handle([conversation_id], tenant_id)
    wake.send([conversation_id], tenant_id)


def _present_state(conversation_id: int) -> str:
    """Describe the lane as it is now, for a person whose act came too late."""
    lane = Conversation.objects.filter(pk=conversation_id).first()
    if lane is None:
        return "this conversation is gone"
    who = "a person answers" if lane.mode == Conversation.Mode.HUMAN else "the bot answers"
    head = f"message {lane.next_sequence} is next" if lane.next_sequence <= lane.last_sequence else "nothing is waiting"
    return f"{who}{', it is paused' if lane.paused_at else ''}, {head}"


def _commit(statements: Statements) -> Rows:
    """Run one pipeline on this request's connection, up to ``TRIES`` times while the lane is locked."""
    return _retry_while_locked(lambda: database.transaction(_own_connection(), statements))


def _retry_while_locked(attempt: Callable[[], Result]) -> Result:
    """Call ``attempt``, up to ``TRIES`` times while another transaction locks the lane.

    Raises ``Busy`` if it stays locked, ``LaneMoved`` if the copy of a message exists already.
    """
    for last in (*[False] * (TRIES - 1), True):
        try:
            return attempt()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if last:
                raise Busy("somebody else holds this conversation just now; try again") from None
        except psycopg.errors.UniqueViolation:
            raise LaneMoved("it changed meanwhile: somebody has replayed this message") from None
    raise AssertionError("unreachable")


def _own_connection() -> psycopg.Connection[Row]:
    """Return this request's connection for a transaction of ours.

    Raises ``RuntimeError`` inside ``atomic``: the caller's rollback would undo a verb that was
    reported as done.
    """
    if connection.in_atomic_block:
        raise RuntimeError("a verb is a transaction of its own")
    connection.ensure_connection()
    return connection.connection


def _sql(name: str, **values: Any) -> Statement:
    parameters: Mapping[str, Any] = values
    return sql(name), parameters


def _note(text: str) -> str:
    return clean_text(text.strip(), NOTE_CHARACTERS)
