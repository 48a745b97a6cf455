"""The verbs of staff: what a person may do to a lane, a reply, a pause or a quarantined item.

Each verb is one ``desk.transaction``. A turn that was computed before cannot undo a verb, because
the verb bumps the epoch or takes a number. Callers ask ``access`` first: the names of these
functions are the actions of ``access.LEAST``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.contrib.auth.models import User
from django.db import transaction

from conversations import crypto, installation, registry
from conversations.contracts import Struct
from conversations.desk import answers
from conversations.desk.transaction import Statements, act, audit_step, clean_note, commit, step
from conversations.errors import CoreError, LaneMoved
from conversations.models import App, Audit, Channel, Message, Quarantine, Reply
from conversations.postgres.database import Statement
from conversations.template_shapes import Template

# Most replays of one message. Larger: ``next_replay`` looks up more identities for each page.
REPLAYS = 64


class NotAnswered(CoreError):
    """Staff wanted answered messages to be skipped, and nobody had answered them."""

    def __str__(self) -> str:
        return "nobody has written since these messages came: leave them to the bot, or skip them with a reason"


class Seen(Struct, frozen=True, kw_only=True):
    """The lane as the page showed it.

    ``epoch`` changes with each act of a person, ``next_sequence`` with the head.
    """

    conversation: int
    epoch: int
    next_sequence: int
    last_sequence: int = 0  # the newest message that the page showed
    last_reply_sequence: int | None = None  # the newest reply; an answer of this form goes out once

    def lane(self, **more: Any) -> dict[str, Any]:
        """Return what must still hold for an act on who answers: no person acted meanwhile."""
        return {"conversation": self.conversation, "epoch": self.epoch, **more}

    def head(self) -> dict[str, Any]:
        """Return what must still hold for an act on the head: the same message is next."""
        return self.lane(next_sequence=self.next_sequence)


# ---------------------------------------------------------------- the head of the lane


def retry(seen: Seen, staff: User) -> None:
    """Try the head again at once, with all its attempts."""
    act(seen.head(), staff, "retry", {"retry": step("retry")}, subject=f"message {seen.next_sequence}")


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
    written = f"{status} by {staff.get_username()}: {clean_note(note)}"
    statement = step("pass", status=status, note=written, statuses=statuses)
    act(seen.head(), staff, verb, {"pass": statement}, subject=f"message {seen.next_sequence}", reason=note)


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
    statement = step("replay", message=message.pk, identity=identity, statuses=["parked"], unpark=True)
    return _append_copy(staff, "unpark", message, statement)


def replay(staff: User, message: Message, number: int) -> int:
    """Put a copy of a passed message at the tail, as its replay ``number``. Return the copy's own."""
    if not 1 <= number <= REPLAYS:
        raise LaneMoved(f"a message is replayed {REPLAYS} times at most")
    identity = _copy_identity(message, f"r:{number}")
    statuses = ["handled", "skipped"]
    statement = step("replay", message=message.pk, identity=identity, statuses=statuses, unpark=False)
    return _append_copy(staff, "replay", message, statement)


def next_replay(message: Message) -> int:
    """Return the number of the next replay of ``message``: a form that is sent twice replays once."""
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
    rows = act(lane, staff, verb, {"copy": statement}, subject=f"message {message.sequence}")
    return int(rows["copy"][0][1])


# ---------------------------------------------------------------- who answers


def take_over(seen: Seen, staff: User, reason: str = "") -> None:
    """Let a person answer from now on; replies that the bot has not begun to send become drafts."""
    act(seen.lane(mode="bot"), staff, "take_over", _take_over_steps(staff), reason=reason)


def answer(
    seen: Seen, staff: User, text: str | Template, files: Sequence[str] = (), *, taking_over: bool = False
) -> None:
    """Write a person's reply. ``files``: ids of what ``answers.keep_file`` kept.

    With ``taking_over``, take over from the bot in the same transaction, so that the bot cannot
    answer in between.
    """
    bodies = answers.bodies(seen.conversation, text, files)
    statement = step("answer", bodies=msgspec.json.encode(bodies).decode(), staff=staff.pk)
    if taking_over:
        steps = {**_take_over_steps(staff), "took": audit_step(staff, "take_over"), "answer": statement}
        act(seen.lane(mode="bot"), staff, "answer", steps)
    else:
        expected = seen.lane(mode="human", last_reply_sequence=seen.last_reply_sequence)
        act(expected, staff, "answer", {"answer": statement})


def hand_back(seen: Seen, staff: User, *, skip_answered: bool) -> int:
    """Give the conversation back to the bot. Return how many messages are skipped as answered.

    With ``skip_answered`` the messages that the page showed and a person answered are skipped; the
    others go to the bot. Raises ``NotAnswered`` where nobody answered any of them.
    """
    skip = {"skip": step("skip_answered", seen_last=seen.last_sequence)} if skip_answered else {}
    steps = {
        **skip,
        # Between them: a refused hand-back numbers nothing that still waits for its window, and the
        # first pending message is looked for where all are numbered.
        "release": step("release", everything=skip_answered),
        "back": step("hand_back"),
        "assign": step("assign", assignee=None),
    }
    reason = "answered messages skipped:" if skip_answered else "left to the bot"
    rows = act(seen.lane(mode="human"), staff, "hand_back", steps, reason=reason, refused=NotAnswered)
    return int(rows["skip"][0][0]) if skip_answered else 0


def _take_over_steps(staff: User) -> Statements:
    """Return the statements that stop the bot, make its replies drafts and assign ``staff``."""
    return {
        "release": step("release", everything=True),
        "take over": step("take_over"),
        "replies": step("move_replies"),
        "assign": step("assign", assignee=staff.pk),
    }


# ---------------------------------------------------------------- the lane as a whole


def wake_up(conversation_id: int, staff: User) -> None:
    """Make the lane due now. Retry times stay."""
    act({"conversation": conversation_id}, staff, "wake", {"wake": step("wake")})


def pause(conversation_id: int, staff: User, reason: str) -> None:
    """Stop the bot in this conversation. Replies that are written already still go out."""
    lane = {"conversation": conversation_id, "paused": False}
    act(lane, staff, "pause", {"pause": step("pause", paused=True)}, reason=reason)


def resume(conversation_id: int, staff: User) -> None:
    """End a pause of this conversation; the bot goes on where it stopped."""
    lane = {"conversation": conversation_id, "paused": True}
    act(lane, staff, "resume", {"resume": step("pause", paused=False)})


def set_opt_out(conversation_id: int, staff: User, reason: str, *, out: bool) -> None:
    """Let nothing go out to this person; or end that, and a refusal of marketing, and a block."""
    verb = "opt_out" if out else "opt_in"
    act({"conversation": conversation_id}, staff, verb, {verb: step("set_opt_out", out=out)}, reason=reason)


# ---------------------------------------------------------------- replies that wait for a person


def decide_unknown_reply(reply: Reply, staff: User, *, sent: bool) -> None:
    """Settle a reply of which nobody knows whether it arrived: it did, or it is sent again.

    It is sent with the same key. A bot's reply from before a take-over becomes a draft instead.
    """
    statement = step("decide_reply", reply=reply.pk, sent=sent)
    _act_on_reply(reply, staff, "decide_sent" if sent else "decide_resend", statement)


def resend_reply(reply: Reply, staff: User, instead: Template | None = None) -> None:
    """Send the same words, or a template in their place, as a new reply of this person, at the tail."""
    bodies = answers.bodies(reply.conversation_id, instead) if instead else []
    body = msgspec.json.encode(bodies[0]).decode() if bodies else None
    values = {"statuses": ["parked", "failed", "expired"], "staff": staff.pk, "body": body}
    _act_on_reply(reply, staff, "resend", step("resend_reply", reply=reply.pk, **values))


def cancel_reply(reply: Reply, staff: User, note: str) -> None:
    """Cancel a reply that has not started, or take a refused one off the list of staff."""
    written = f"set aside by {staff.get_username()}: {clean_note(note)}"
    statement = step("cancel_reply", reply=reply.pk, statuses=["pending", "parked", "failed"], note=written)
    _act_on_reply(reply, staff, "cancel", statement, reason=note)


def _act_on_reply(reply: Reply, staff: User, verb: str, statement: Statement, reason: str = "") -> None:
    """Run ``statement`` for one reply, and make the next reply due if this one is settled."""
    steps = {"reply": statement, "replies": step("move_replies")}
    act({"conversation": reply.conversation_id}, staff, verb, steps, subject=f"reply {reply.sequence}", reason=reason)


# ---------------------------------------------------------------- beyond one lane


def start_pause(scope: str, target: str, stops: str, staff: User, reason: str) -> None:
    """Stop handling or sending of a whole channel, bot or tenant, until staff end it."""
    key = {"scope": scope, "target": target, "stops": stops}
    statement = step("start_pause", **key, staff=staff.pk, reason=clean_note(reason))
    if not commit({"start": statement})["start"]:
        raise LaneMoved("it changed meanwhile: staff have stopped this already")


def end_pause(pause_id: int, since: dt.datetime | None, staff: User, reason: str = "") -> None:
    """End the pause that began at ``since``; the sweeper wakes the lanes that it stopped.

    A pause that began after the page was loaded is not ended.
    """
    statement = step("end_pause_by_staff", pause=pause_id, since=since, staff=staff.pk, reason=clean_note(reason))
    if not commit({"end": statement})["end"]:
        raise LaneMoved("it changed meanwhile: this pause ended, or another one began")


def set_credentials(target: Channel | App, values: Mapping[str, str], staff: User) -> None:
    """Write credentials by name; an empty value removes one, also one that the platform does not know.

    Ends the pauses of the channel, or of the app's channels, that wrong credentials may have caused.
    Raises ``WrongSetting`` where the platform cannot take a value.
    """
    for name, value in values.items():
        if value:
            registry.adapter(target.platform).check_credential(name, value)
    with transaction.atomic(durable=True):
        row = type(target)._default_manager.select_for_update().get(pk=target.pk)
        row.set_credentials(values)
        row.save(update_fields=["sealed"])
        _note_change(row, staff, "set_credentials", changes=dict.fromkeys(values))
    channels = Channel.objects.filter(**{"pk" if isinstance(row, Channel) else "app": row.pk})
    for pk in channels.values_list("pk", flat=True):
        ended = {"scope": "channel", "target": str(pk), "member": None}
        commit({stops: step("end_pause", **ended, stops=stops) for stops in ("sending", "handling")})
    registry.forget_channels()


def set_active(channel: Channel, active: bool, staff: User, reason: str) -> None:
    """Switch a channel on or off. While it is off, messages are stored and lanes wait."""
    with transaction.atomic(durable=True):
        changed = Channel.objects.filter(pk=channel.pk, active=not active).update(active=active)
        if not changed:
            raise LaneMoved("it changed meanwhile: somebody has done that already")
        changes = {"active": [not active, active]}
        _note_change(channel, staff, "switch_on" if active else "switch_off", reason, changes=changes)
    registry.forget_channels()


def _note_change(
    row: Channel | App, staff: User, verb: str, reason: str = "", *, changes: Mapping[str, list[Any] | None]
) -> None:
    """Write the audit entry of a change to a channel or an app, in the caller's transaction."""
    Audit.objects.create(
        staff=staff,
        verb=verb,
        tenant_id=row.tenant_id,
        subject=row.place().replace(":", " ", 1),
        reason=clean_note(reason),
        changes=changes,
    )


def settle_quarantine(item: Quarantine, staff: User, note: str) -> None:
    """Settle a quarantined item; its bytes are kept."""
    statement = step("settle_quarantine", item=item.pk, staff=staff.pk, reason=clean_note(note))
    if not commit({"settle": statement})["settle"]:
        raise LaneMoved("it changed meanwhile: somebody has settled this item")


def note_reading(conversation_ids: Sequence[int], staff: User) -> None:
    """Audit that a person read what people wrote in these conversations, each once an hour."""
    commit({"read": step("note_reading", conversations=list(conversation_ids), staff=staff.pk)})


def note_page(staff: User, verb: str, subject: str, *, tenant: int | None = None, reason: str = "") -> None:
    """Audit that a person read or searched what is in no conversation, once an hour.

    ``reason``: the words that were sought. ``tenant`` None: of several tenants.
    """
    words = {"subject": clean_note(subject), "reason": clean_note(reason)}
    commit({"read": step("note_page", staff=staff.pk, verb=verb, tenant=tenant, **words)})
