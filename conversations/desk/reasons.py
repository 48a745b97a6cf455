"""Why a conversation is not moving, in sentences made of facts. Reads and decides nothing."""

from __future__ import annotations

import dataclasses
import datetime as dt

from conversations import registry
from conversations.contracts import Work
from conversations.delivering import results
from conversations.desk.facts import LATE_SECONDS, Around, Facts
from conversations.desk.templatetags.desk import clock
from conversations.handling import verdicts

NOBODY = "nobody has taken it yet"  # no person of staff is assigned
# What the next reply waits for, by the kind of its attachment.
AWAITED = {"image": "picture", "audio": "recording", "voice": "voice message", "video": "video", "file": "file"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One sentence for staff.

    ``weight``: stuck (a person is needed), waits, person (a person answers), flows, idle.
    """

    text: str
    weight: str
    until: dt.datetime | None = None
    since: dt.datetime | None = None


def reasons(facts: Facts, around: Around, now: dt.datetime) -> list[Reason]:
    """Return why the lane does not move, one sentence each for what is not as it should be.

    In order: handling, sending, a parked message, a refused reply. Idle if nothing waits.
    """
    found = [_handling(facts, around, now), _delivering(facts, around, now), _parked(facts), _refused(facts)]
    return [reason for reason in found if reason] or [Reason(text="Nothing is waiting here.", weight="idle")]


def _handling(facts: Facts, around: Around, now: dt.datetime) -> Reason | None:
    """Say why the next message is not handled.

    The order of the questions matters: while a person answers, for example, a pause of the
    whole channel explains nothing.
    """
    if facts.paused_at:
        return _paused(facts)
    if facts.mode == "human":
        return _human(facts)
    if facts.blocked:
        return _blocked(facts)
    if not facts.pending:
        return _ordering(facts)
    cause = around.stopping(facts.channel_id, "handling")
    if cause:
        return _stuck(f"{cause.text}.", since=cause.since, until=cause.probe_at)
    return _head(facts, around, now)


def _paused(facts: Facts) -> Reason:
    who = f" by {facts.paused_by}" if facts.paused_by else ""
    return _stuck(f"The bot is paused here{who}{_cause_words(facts.pause_reason)}.", since=facts.paused_at)


def _human(facts: Facts) -> Reason:
    """Say whether the person who should answer has done so.

    They have if the lane's last reply is a person's and newer than its last message.
    """
    answered = facts.newest_at is None or (facts.answered_at is not None and facts.answered_at >= facts.newest_at)
    if not facts.assignee and not answered:
        return _stuck(f"A person is needed{_cause_words(facts.passed_note)}; {NOBODY}.", since=facts.newest_at)
    who = f"A person ({facts.assignee}) answers here" if facts.assignee else "A person answers here"
    if answered:
        return Reason(text=f"{who}.", weight="person")
    return _waits(f"{who}; the newest message waits for words.", since=facts.newest_at)


def _blocked(facts: Facts) -> Reason:
    """Say which message holds up the lane: the channel's policy lets nothing pass it."""
    what = "stands for a hole" if facts.head_status == "missing" else "is parked"
    text = f"Message {facts.next_sequence} {what} and holds up what follows{_cause_words(facts.head_note)}."
    return _stuck(text, since=facts.head_received_at)


def _ordering(facts: Facts) -> Reason | None:
    """Say what messages without a number wait for: earlier ones in the platform's own order."""
    if not facts.waiting:
        return None
    if facts.gap_since and facts.last_key is not None:
        text = f"Waiting for number {facts.last_key + 1} of the platform's order."
        return _waits(text, since=facts.gap_since, until=facts.wait_until)
    return _waits("Waiting for an earlier message that may still come.", until=facts.wait_until)


def _head(facts: Facts, around: Around, now: dt.datetime) -> Reason:
    """Say what happens to the head (the next message) where nothing stops the lane."""
    message, since = f"Message {facts.next_sequence}", facts.head_received_at
    if around.held and (why := registry.why_bot_waits(facts.bot)):
        return _stuck(f"{message} is held, since bot '{facts.bot}' is outside: {why}.", since=since)
    if facts.attempts:
        text = f"The bot failed {facts.attempts} of {verdicts.ATTEMPTS} times{_error_words(facts)}; it is tried again."
        return _waits(text, since=since, until=facts.not_before)
    if facts.suspect:
        return _waits(f"{message}: its last worker died; the next turn runs in a process of its own.", since=since)
    if facts.in_hand:
        return _flows(f"{message} is with the bot now.", since=since)
    if _overdue(facts.due_at, now):
        busy = "no worker has taken it" if Work.HANDLE in around.kinds else "no worker is running"
        return _stuck(f"{message} should have been handled by now; {busy}.", since=since)
    return _flows(f"{message} is next.", since=since)


def _delivering(facts: Facts, around: Around, now: dt.datetime) -> Reason | None:
    """Say what happens to the first unsettled reply; None if there is none."""
    reply, since = f"Reply {facts.reply_sequence}", facts.reply_created_at
    match facts.reply_status:
        case "unknown" if facts.reply_not_before:
            text = f"{reply} may or may not have arrived{_cause_words(facts.reply_error)}"
            return _waits(f"{text}; the platform may still report it.", until=facts.reply_not_before)
        case "unknown":
            text = f"{reply} may or may not have arrived{_cause_words(facts.reply_error)}; please decide."
            return _stuck(text, since=since)
        case "sending":
            return _flows(f"{reply} is being sent.", since=since)
        case "pending":
            return _unsent(facts, around, now)
    return None


def _unsent(facts: Facts, around: Around, now: dt.datetime) -> Reason:
    """Say why a reply that is ready is not sent yet."""
    cause = around.stopping(facts.channel_id, "sending")
    reply, since = f"Reply {facts.reply_sequence}", facts.reply_created_at
    if around.held:
        return _stuck(f"{reply} is held: {around.held}.", since=since)
    if cause:
        return _stuck(f"{cause.text}; {cause.waiting_words}.", since=cause.since, until=cause.probe_at)
    if facts.phone_until and facts.phone_until > now:
        what, end = AWAITED.get(facts.awaited_kind or "", "message"), clock(facts.phone_until)
        return _waits(f"{reply} waits until the {what} before it was delivered, at most until {end}.")
    if facts.bucket_until:
        return _waits(
            f"{reply}: the platform asked for a pause{_cause_words(facts.bucket_words)}.", until=facts.bucket_until
        )
    if facts.reply_attempts:
        text = f"{reply} failed {facts.reply_attempts} of {results.ATTEMPTS} times{_cause_words(facts.reply_error)}"
        return _waits(f"{text}; it is tried again.", until=facts.reply_not_before)
    if _overdue(facts.send_due_at, now):
        busy = "no sender has taken it" if Work.SEND in around.kinds else "no sender is running"
        return _stuck(f"{reply} should have been sent by now; {busy}.", since=since)
    return _flows(f"{reply} is about to be sent.", since=since)


def _parked(facts: Facts) -> Reason | None:
    """Name a parked message, unless ``_blocked`` or ``_human`` has named it already."""
    named = facts.next_sequence if facts.blocked else facts.next_sequence - 1 if facts.mode == "human" else None
    if facts.parked_sequence in (None, named):
        return None
    return _stuck(f"Message {facts.parked_sequence} was parked{_cause_words(facts.parked_note)}.")


def _refused(facts: Facts) -> Reason | None:
    """Name a reply that staff must look at, unless ``_delivering`` has named it already.

    What stops all replies to the person is named in its place.
    """
    if facts.opted_out_at:
        by = f" ({facts.opted_out_by})" if facts.opted_out_by else ""
        text = f"The person wants no more messages{by}; each reply is parked and goes out only if sent again."
        return _waits(text, since=facts.opted_out_at)
    if facts.unreachable_since:
        text = "The person has blocked us; each reply is parked until they write and goes out only if sent again."
        return _waits(text, since=facts.unreachable_since)
    if facts.refused_sequence is None or facts.refused_sequence == facts.reply_sequence:
        return None
    words = {"parked": "was refused", "failed": "was taken by the platform, which later said that it failed"}
    what = words.get(facts.refused_status or "", "may or may not have arrived")
    return _stuck(f"Reply {facts.refused_sequence} {what}{_cause_words(facts.refused_error)}.")


def _error_words(facts: Facts) -> str:
    """Name the type of the bot's last error and where it was raised; '' where it raised none."""
    if not facts.error_type:
        return ""
    return f" with {facts.error_type}{f' at {facts.error_place}' if facts.error_place else ''}"


def _cause_words(words: str | None) -> str:
    return f": {words}" if words else ""


def _overdue(moment: dt.datetime | None, now: dt.datetime) -> bool:
    """Return True if work has been due for more than ``LATE_SECONDS``: no process has taken it."""
    return moment is not None and now - moment > dt.timedelta(seconds=LATE_SECONDS)


def _stuck(text: str, *, since: dt.datetime | None = None, until: dt.datetime | None = None) -> Reason:
    return Reason(text=text, weight="stuck", since=since, until=until)


def _waits(text: str, *, since: dt.datetime | None = None, until: dt.datetime | None = None) -> Reason:
    return Reason(text=text, weight="waits", since=since, until=until)


def _flows(text: str, *, since: dt.datetime | None = None) -> Reason:
    return Reason(text=text, weight="flows", since=since)
