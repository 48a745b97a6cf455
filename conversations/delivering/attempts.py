"""Attempts to send: COMMIT the intent -> call -> COMMIT the result, one of a lane at a time."""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Callable, Sequence

import structlog

from conversations.concurrency import Mailbox
from conversations.contracts import Outcome, Unknown
from conversations.delivering import results
from conversations.delivering.calls import Call, Calls
from conversations.delivering.lane import Lane
from conversations.delivering.results import NOTHING_WRITTEN, Step, Written
from conversations.delivering.send_stream import SENDS
from conversations.failpoints import failpoint
from conversations.postgres.committer import Committer
from conversations.postgres.stream import Ticket
from conversations.telemetry import logs

log = structlog.get_logger(__name__)


class Attempts:
    """The attempts of one process. For the thread that decides, where nothing else is said.

    That thread, whose ``mailbox`` this is, calls ``call_ended(lane)`` when a lane holds the result
    of its call, and ``committed`` with lanes whose step was written and began no call: each with
    the seconds to wait, and whether nothing is left to send.
    """

    def __init__(
        self,
        writer: Committer,
        calls: Calls,
        mailbox: Mailbox,
        call_ended: Callable[[Lane], None],
        committed: Callable[[Sequence[tuple[Lane, float, bool]]], None],
    ) -> None:
        self._writer, self._calls, self._mailbox = writer, calls, mailbox
        self._call_ended, self._committed = call_ended, committed
        self._running: dict[int, Call] = {}  # by lane
        self._in_hand: set[int] = set()  # replies whose intent or call this process knows of
        self._unwritten: set[int] = set()  # replies that were sent and whose result could not be written

    def __bool__(self) -> bool:
        """Return True while an intent, a call or a result is under way."""
        return bool(self._in_hand)

    def knows(self, reply_id: int | None) -> bool:
        return reply_id in self._in_hand

    def begin(self, lane: Lane, claim: uuid.UUID) -> None:
        """Commit the intent to send the lane's next reply, with the result of the one before.

        Only then may the call begin: if this process dies in it, the row says that it may have been
        sent. ``claim``: the process's incarnation.
        """
        reply = lane.in_flight = lane.replies.popleft()
        assert reply.reply_id is not None
        assert lane.channel is not None
        step = lane.result or Step(id=lane.id, channel_id=reply.channel_id)
        lane.result, lane.probe, lane.claim = None, False, claim
        step.intent_claim = str(claim)
        step.intent_id, step.intent_sequence, step.intent_number = reply.reply_id, reply.sequence, reply.intent_number
        step.phone_wait = results.phone_wait(reply, lane.channel)
        lane.trace = bytes(reply.identity or b"").hex()[:16]
        self._in_hand.add(reply.reply_id)
        failpoint("D1")
        self.write(lane, step)

    def write_result(self, lane: Lane, wait: float = 0.0) -> None:
        """Write the lane's result alone; the lane goes on ``wait`` seconds later."""
        assert lane.result is not None
        step, lane.result = lane.result, None
        self.write(lane, step, wait)

    def requeue(self, lane: Lane, claim: uuid.UUID) -> None:
        """Put a reply of ours that we lost track of back into its lane.

        If its call was made and the result could not be written, the outcome is unknown. Else the
        call never began, and no attempt is spent.
        """
        assert lane.channel is not None
        reply = lane.replies.popleft()
        if reply.reply_id in self._unwritten:
            unknown = Unknown(reason="its result could not be written")
            self.write(lane, results.retry(reply, claim, lane.channel, unknown, False))
        else:
            spent = max(0, reply.attempts - 1)
            self.write(lane, results.result(reply, claim, "pending", attempts_after=spent, delay=0.0))

    def end_wait(self, lane: Lane) -> None:
        """Write what becomes of a reply of unknown outcome that no status named in time."""
        assert lane.channel is not None
        self.write(lane, results.unreported(lane.replies.popleft(), lane.channel))

    def write(self, lane: Lane, step: Step, wait: float = 0.0) -> None:
        """Hand a step to the committer. Nothing else is done with the lane until it is written."""
        self._writer.submit(SENDS, [step], self._on_commit, about=(lane, wait))

    def abandon(self, reason: str) -> None:
        """Wait no longer for the calls that run: their outcome is unknown. On any thread."""
        for call in list(self._running.values()):
            self._mailbox.post(self._ended, call, Unknown(reason=reason), False)

    def _on_commit(self, tickets: list[Ticket[Step, Written]]) -> None:
        """Called by the committer: post what was written, then begin the calls.

        The deciding thread has nothing to do for an intent that was written alone.
        """
        calls = []
        for ticket in tickets:
            lane, written = ticket.about[0], _written(ticket)
            if written.intent:
                call = Call(lane, lane.channel, lane.in_flight, lane.request, written.begun_at)
                self._running[lane.id] = call
                calls.append(call)
        if others := [ticket for ticket in tickets if ticket.item.reply_id is not None or not _written(ticket).intent]:
            self._mailbox.post(self._note, others)
        for call in calls:
            failpoint("D2")
            self._calls.begin(call, self._on_end)

    def _on_end(self, call: Call, outcome: Outcome, paused: bool) -> None:
        """Called when a call has ended, on any thread."""
        self._mailbox.post(self._ended, call, outcome, paused)

    def _ended(self, call: Call, outcome: Outcome, paused: bool) -> None:
        """Judge the outcome of a call, unless it was abandoned."""
        lane = call.lane
        if self._running.get(lane.id) is not call:
            return
        failpoint("D3")
        del self._running[lane.id]
        lane.in_flight = None
        took = time.monotonic() - call.begun_at
        lane.result = results.judge(call.reply, lane.claim, call.channel, outcome, paused, took)
        self._call_ended(lane)

    def _note(self, tickets: Sequence[Ticket[Step, Written]]) -> None:
        """Note and log results that were written, or intents that were refused."""
        lines: dict[str, list[logs.Line]] = collections.defaultdict(list)  # by status
        free = []
        for ticket in tickets:
            (lane, wait), step, written = ticket.about, ticket.item, _written(ticket)
            if step.reply_id is not None:
                self._note_result(step, ticket.error)
                line = {"conversation": lane.id, "sequence": step.sequence, "attempt": step.attempts}
                lines[written.status if written.result else "moved"].append({**line, "trace": lane.trace})
            if written.intent:
                continue
            if step.intent_id is not None:
                self._in_hand.discard(step.intent_id)
                lane.in_flight = None
            free.append((lane, wait, written.is_done()))
        for status, together in lines.items():
            logs.together(log, "reply", together, status=status)
        self._committed(free)

    def _note_result(self, step: Step, error: Exception | None) -> None:
        """Note whether a result was written.

        A result that the database refuses leaves its row in our name: ``requeue`` must know that
        the call was made.
        """
        assert step.reply_id is not None
        self._in_hand.discard(step.reply_id)
        if error is not None and step.expect == "sending":
            log.error("result refused by the database", conversation=step.id, error=type(error).__name__)
            self._unwritten.add(step.reply_id)
        else:
            self._unwritten.discard(step.reply_id)


def _written(ticket: Ticket[Step, Written]) -> Written:
    """Return what was written of a ticket's step: nothing if it failed."""
    return ticket.result if ticket.error is None else NOTHING_WRITTEN
