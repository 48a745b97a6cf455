"""Delivers replies: per lane, in order, within rate limits: COMMIT intent -> send -> COMMIT result.

1. Hold the lanes, fetch their next replies in one query.
2. Ask the limiter which may start now, where the channel has limits.
3. COMMIT an intent, "this process is about to send this reply", with the result of the one before.
4. Call adapter.send on a thread. It ends in one of five outcomes.
5. COMMIT the result, with the next intent.

One thread decides. Whatever needs a round trip runs on a Stage (one thread, one trip for many
lanes), in the committer or on a thread of ``Calls``, and posts what comes next to that thread.

**Invariant:** one reply of a lane is in flight; k+1 starts only after k is settled.
"""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import structlog

from conversations import installation, registry, runtime
from conversations.concurrency import Mailbox, Stage
from conversations.contracts import ChannelConfig, Work
from conversations.delivering import results
from conversations.delivering.attempts import Attempts
from conversations.delivering.bulkhead import Bulkhead
from conversations.delivering.calls import Calls
from conversations.delivering.decision import STAY_SECONDS, Do, Facts, Refuse, Wait, decide
from conversations.delivering.lane import Lane
from conversations.delivering.limiter import Limiter, request_of
from conversations.delivering.results import Next
from conversations.errors import CoreError
from conversations.lanes import pauses
from conversations.lanes.lock import Locks
from conversations.postgres import committer
from conversations.postgres.sql_files import sql

log = structlog.get_logger(__name__)

# Lanes (conversations) of a channel that keep the replies they fetched while they wait for a slot;
# later ones fetch again. Larger: fewer queries, more memory.
READ_AHEAD = 256
# Seconds kept at a shutdown for writing the results of calls that were cut. Longer: less time for
# calls to end; shorter: results may stay unwritten, and their replies are sent again.
STOP_SECONDS = 3.0
# Seconds between two checks for rows in our name that we do not know of. Longer: fewer queries, and
# a reply whose COMMIT succeeded without an answer waits longer.
CHECK_SECONDS = 2.0
# Lanes per round trip at most: for reading replies or asking the limiter, and for releasing.
# Larger: fewer trips, and the first lane of a batch waits longer for the rest.
LANES_PER_TRIP, LANES_PER_RELEASE = 64, 500
# Posted calls after which lanes that wait get free slots at the latest. Larger: fewer looks at
# those that wait; smaller: during a flood of calls they wait less.
CALLS_PER_PASS = 1_000


class Sender:
    """Delivers lanes. One per process, entered by ``send``."""

    def __init__(self, writer: committer.Committer, locks: Locks, incarnation: uuid.UUID, limiter: Limiter) -> None:
        self.writer, self.locks, self.incarnation, self.limiter = writer, locks, incarnation, limiter
        self._bulkhead = Bulkhead()  # slots: from asking the limiter to the call's end
        self._stopping = False
        self._mailbox = Mailbox("deliver", CALLS_PER_PASS, self._give_out_slots)
        calls = Calls(limiter, self._may_call)
        self._attempts = Attempts(writer, calls, self._mailbox, self._call_ended, self._committed)
        self._reads = Stage("read", self._read_replies, LANES_PER_TRIP)
        self._admissions = Stage("admit", self._ask_limiter, LANES_PER_TRIP)
        self._releases = Stage("release", self._release_batch, LANES_PER_RELEASE)
        self._mailbox.post_later(CHECK_SECONDS, self._find_lost)

    def has_room(self) -> bool:
        """Return True if this process may take more lanes."""
        return not self._stopping

    def send(self, conversation_ids: Sequence[int], *, probe: bool = False, locked: bool = True) -> None:
        """Deliver the next replies of these lanes. May wait for one read of them; raises nothing.

        ``probe``: try one reply although the channel is paused; ``locked=False``: without Redis.
        """
        if not self._stopping and (mine := self.locks.take(conversation_ids, locked=locked)):
            self._reads.run([Lane(lane, probe) for lane in mine])

    def stop(self, seconds: float) -> None:
        """Start no new call, wait up to ``seconds`` for calls and results, then free the locks.

        Calls that do not end in time have an unknown outcome.
        """
        self._stopping = True
        end = time.monotonic() + seconds
        self._drain(end - STOP_SECONDS)
        self._attempts.abandon("its sender was stopped while it was being sent")
        self._drain(end)
        self.locks.stop()

    def _drain(self, end: float) -> None:
        """Wait until ``end`` (monotonic) for calls to end and results to be written."""
        while time.monotonic() < end and (self._bulkhead or self._attempts):
            time.sleep(0.05)

    # ------------------------------------------------------------ one thread decides

    def _give_out_slots(self) -> None:
        """Let lanes that wait for a slot go on, as far as slots are free.

        It comes after what was posted: lanes that go on with replies they fetched keep their slots,
        so that nothing is fetched twice.
        """
        while started := self._bulkhead.start_waiting():
            self._resume(started)

    def _resume(self, lanes: Sequence[Lane]) -> None:
        """Go on with lanes that waited: fetch replies for those that have none."""
        fetched = [lane for lane in lanes if lane.replies]
        self._reads.put([lane for lane in lanes if not lane.replies])
        self._advance(fetched)

    def _read_replies(self, lanes: list[Lane]) -> None:
        """Stage: fetch the next replies of lanes."""
        try:
            rows = runtime.read(sql("fetch_replies"), {"ids": [lane.id for lane in lanes]})
        except (psycopg.Error, CoreError) as error:
            log.warning("replies not read", error=type(error).__name__)
            self._mailbox.post(self._not_read, lanes)
        else:
            self._mailbox.post(self._found, lanes, rows)

    def _not_read(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            self._bulkhead.free(lane)
        self._releases.put(lanes)

    def _found(self, lanes: Sequence[Lane], rows: Sequence[tuple[Any, ...]]) -> None:
        """Give each lane the replies that were fetched for it."""
        found: dict[int, list[Next]] = collections.defaultdict(list)
        for row in rows:
            found[row[0]].append(Next(*row))
        now = time.monotonic()
        for lane in lanes:
            lane.replies, lane.read_at = collections.deque(found[lane.id]), now
            lane.channel = _channel(found[lane.id][0].channel_id) if found[lane.id] else None
        self._advance(lanes)

    def _release_batch(self, lanes: list[Lane]) -> None:
        """Stage: release lanes, or read those again that ``Locks.release`` keeps."""
        again = set(self.locks.release([lane.id for lane in lanes], keep=not self._stopping))
        self._reads.put([lane for lane in lanes if lane.id in again])

    def _advance(self, lanes: Sequence[Lane]) -> None:
        """Decide about each lane's next reply, and do it."""
        for lane in lanes:
            self._drop_settled(lane)
            decision = decide(lane, self._facts(lane))
            if decision is Do.START:
                self._ask_to_start(lane)
                continue
            self._bulkhead.free(lane)
            match decision:
                case Do.WAIT_FOR_SLOT:
                    self._wait_for_slot(lane)
                case Do.WRITE_RESULT:
                    self._attempts.write_result(lane)
                case Do.REQUEUE:
                    self._attempts.requeue(lane, self.incarnation)
                case Do.END_WAIT:
                    self._attempts.end_wait(lane)
                case Wait(seconds):
                    lane.replies.clear()  # fetched again then: these rows would say "wait" for ever
                    self._mailbox.post_later(seconds, self._resume, [lane])
                case Refuse(status, reason):
                    self._attempts.write(lane, results.result(lane.replies.popleft(), None, status, error=reason))
                case _:
                    self._releases.put([lane])

    def _facts(self, lane: Lane) -> Facts:
        """Return what a decision about the lane's next reply depends on besides the lane."""
        if not lane.replies or lane.channel is None:
            return Facts()
        reply, channel = lane.replies[0], lane.channel
        mine = reply.status == "sending" and reply.claimed_by == self.incarnation
        return Facts(
            stopping=self._stopping,
            lost=mine and not self._attempts.knows(reply.reply_id),
            paused=_paused(channel),
            held=not installation.may_send_to(channel, reply.user, reply.chat, reply.is_group),
            slot=lane.slot > 0 or self._bulkhead.free_slots(channel.id) > 0,
        )

    def _drop_settled(self, lane: Lane) -> None:
        """Drop fetched replies that are settled; move the head past them if all are.

        Each query fetches a few replies from the head: otherwise it would fetch these for ever.
        """
        last = None
        while lane.replies and (lane.replies[0].reply_id is None or lane.replies[0].status in results.SETTLED):
            last = lane.replies.popleft()
        if last is None or last.reply_id is None or lane.replies:
            return
        try:
            runtime.execute(sql("skip_settled"), {"id": lane.id, "sequence": last.sequence + 1})
        except (psycopg.Error, CoreError) as error:
            log.warning("head of replies not moved", error=type(error).__name__)

    def _wait_for_slot(self, lane: Lane) -> None:
        """Let the lane wait for a slot of its channel; release it if too many wait."""
        assert lane.channel is not None
        before = self._bulkhead.enqueue(lane, lane.channel.id)
        if before < 0:
            self._releases.put([lane])
        elif before >= READ_AHEAD:
            lane.replies.clear()

    # ------------------------------------------------------------ the limiter

    def _ask_to_start(self, lane: Lane) -> None:
        """Take a slot and ask the limiter. Without limits only a platform's Retry-After is asked for."""
        assert lane.channel is not None
        self._bulkhead.take(lane, lane.channel.id)
        lane.request = request_of(lane.replies[0], lane.channel, time.monotonic() - lane.read_at)
        if lane.request.limits:
            self._admissions.put([lane])
        else:
            self._admitted([lane], [self.limiter.blocked(lane.request)])

    def _ask_limiter(self, lanes: list[Lane]) -> None:
        """Stage: ask the limiter for many lanes at once."""
        self._mailbox.post(self._admitted, lanes, self.limiter.admit([lane.request for lane in lanes if lane.request]))

    def _admitted(self, lanes: Sequence[Lane], waits: Sequence[float]) -> None:
        """Write intents for the lanes that the limiter admitted; the others wait without a slot."""
        for lane, wait in zip(lanes, waits, strict=True):
            if wait <= 0 and not self._stopping:
                self._attempts.begin(lane, self.incarnation)
            else:
                self._bulkhead.free(lane)
                self._wait_for_limiter(lane, wait)

    def _wait_for_limiter(self, lane: Lane, seconds: float) -> None:
        """Wait for the limiter: here, or for longer than ``STAY_SECONDS`` in the reply's row."""
        if lane.result is not None:
            self._attempts.write_result(lane, wait=seconds if seconds <= STAY_SECONDS else 0.0)
        elif seconds <= STAY_SECONDS:
            self._mailbox.post_later(seconds, self._resume, [lane])
        else:
            lane.probe = False  # else it would be tried again at once, and so on until the wait is over
            self._attempts.write(lane, results.result(lane.replies.popleft(), None, "pending", delay=seconds))

    # ------------------------------------------------------------ after an attempt

    def _may_call(self, lane: Lane) -> bool:
        """Return True if this process may begin the call of a lane's intent. On any thread."""
        return not self._stopping and lane.claim == self.incarnation

    def _call_ended(self, lane: Lane) -> None:
        """Go on with a lane that holds the result of its call, to be written with its next intent."""
        self._bulkhead.free(lane)
        self._advance([lane])

    def _committed(self, lanes: Sequence[tuple[Lane, float, bool]]) -> None:
        """Go on with lanes that have no call, see ``Attempts``: read them again, or release them."""
        for lane, wait, is_done in lanes:
            self._bulkhead.free(lane)
            if wait:
                self._mailbox.post_later(wait, self._resume, [lane])
            elif is_done:
                self._releases.put([lane])
        self._reads.put([lane for lane, wait, is_done in lanes if not wait and not is_done])

    def _find_lost(self) -> None:
        """Every ``CHECK_SECONDS``, take lanes that have rows in our name that we do not know of.

        Otherwise a reply whose COMMIT succeeded without an answer would stay "sending" until this
        process ends.
        """
        self._mailbox.post_later(CHECK_SECONDS, self._find_lost)
        try:
            rows = runtime.read(sql("find_claimed"), {"claim": self.incarnation})
        except (psycopg.Error, CoreError):
            return
        lost = [lane for lane, reply in rows if not self._attempts.knows(reply)]
        if lost and not self._stopping:
            self._reads.put([Lane(lane, False) for lane in self.locks.hold_unlocked(lost)])


def _paused(channel: ChannelConfig) -> bool:
    """Return True if sending is paused for the channel or its tenant."""
    try:
        return pauses.is_stopped(*pauses.keys_of(Work.SEND.activity, channel.bot, channel.id, channel.tenant_id))
    except CoreError:  # the database is away: no intent can be written anyway
        return True


def _channel(channel_id: int) -> ChannelConfig | None:
    """Return the channel; None if it cannot be used, so that only its own lanes stop."""
    try:
        channel = registry.channel(channel_id)
        if channel is not None:
            registry.adapter(channel.platform)
        return channel
    except Exception as error:
        log.error("channel cannot be used", channel=channel_id, error=type(error).__name__)
        return None
