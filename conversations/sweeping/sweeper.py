"""Finds whatever was left behind, from Postgres alone. Several sweepers share the work by claiming
rows.

One round:

1. Workers whose heartbeat stopped are marked dead: their lanes and replies are due, locks freed.
2. Replies in ``sending`` that no living sender has claimed are settled.
3. Lanes with messages to handle or replies to deliver are claimed, then woken.
4. Of what is paused, conversations are tried now and then (probes).
5. Due timers become messages of their lanes.
6. Channels whose files wait to be fetched are woken.
7. Partitions and retention (``maintenance``).

With Redis away, this process handles and delivers what it claims, with the same code, on its own
threads.
"""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import psycopg
import structlog

from conversations import installation, runtime
from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.delivering.sender import Sender
from conversations.errors import CoreError, NotStored
from conversations.failpoints import failpoint
from conversations.handling.handler import Handler
from conversations.lanes import pauses
from conversations.media import fetching
from conversations.operating import maintenance
from conversations.postgres import committer
from conversations.postgres.sql_files import sql
from conversations.sweeping import dead_workers, timers
from conversations.sweeping.heartbeats import Beats
from conversations.waking import doorbell, publisher
from conversations.waking.queues import FETCH

log = structlog.get_logger(__name__)

# Seconds between two rounds. Longer: a lane whose wake was lost waits longer; shorter: more load on
# Postgres.
SWEEP_SECONDS = 2.0
# Seconds between two rounds while more lanes are due than their tenants may leave hints. Longer: a
# backlog drains more slowly; shorter: more queries that find no room for hints.
BUSY_SECONDS = 0.2
# Most lanes claimed at once while Redis is away. Larger: fewer rounds, and more lanes that wait in
# this process although another one is free; smaller: more rounds.
DIRECTLY = 512
# Seconds that a thread waits, while Redis is away, for the lanes that it gave to the handler. Longer: a
# few locked rows hold it for longer; shorter: the process takes more lanes than it can work on.
PATIENCE_SECONDS = 10.0
# Channels of a paused bot of which a lane is tried at once, at most. Larger: more calls of a bot that
# still fails; smaller: a bot that fails in some channels only may stop the others for longer.
PROBES = 8
# Seconds between two rounds of upkeep. Longer: old rows stay longer and may come faster than they
# are deleted; shorter: more queries that find nothing.
UPKEEP_SECONDS = 600.0

Due = tuple[int, int, str]  # channel id, tenant id, bot
Wake = Callable[[Work, Sequence[Any]], None]  # of claimed rows: conversation id, tenant id
# Claims of senders without a living Worker row, as (incarnation, beat) for ``Beats``.
LEFT_OVER = """SELECT DISTINCT claimed_by, 0 FROM reply r WHERE status = 'sending'
                 AND NOT EXISTS (SELECT FROM worker w WHERE w.incarnation = r.claimed_by AND NOT w.dead)"""


class Engines(Protocol):
    """Makes a handler and a sender in this process, for the time when Redis is away."""

    def make_handler(self) -> Handler: ...

    def make_sender(self) -> Sender: ...


class Sweeper:
    """The sweeper of one process. A vital thread runs its rounds."""

    def __init__(self, writer: committer.Committer, engines: Engines) -> None:
        self.writer, self.engines = writer, engines
        self._beats = Beats()
        self._claims = Beats()
        self._direct = ThreadPoolExecutor(4, thread_name_prefix="direct")
        self._free_threads = {Work.HANDLE: threading.Semaphore(2), Work.SEND: threading.Semaphore(2)}
        self._upkeep_at = time.monotonic() + 5.0

    def start(self) -> None:
        vital_thread("sweep", self._run)

    def _run(self) -> None:
        """Sweep for ever. A round that fails is repeated: nothing is remembered but heartbeats."""
        while True:
            pause = SWEEP_SECONDS
            try:
                pause = BUSY_SECONDS if self.sweep() else SWEEP_SECONDS
            except (psycopg.Error, CoreError) as error:
                self._beats.forget()  # while we could not read heartbeats, they may have gone on
                self._claims.forget()
                log.warning("sweep cut short", error=type(error).__name__)
            time.sleep(pause)

    def sweep(self) -> bool:
        """Do one round. Return True if more is due than there is room for hints."""
        self._try(self._recover_dead)
        self._try(self._settle_left_over)
        channels = runtime.read(sql("find_due"))
        more = self._try(self._claim_due, Work.HANDLE, [row[:3] for row in channels if row[3]])
        more = self._try(self._claim_due, Work.SEND, [row[:3] for row in channels if row[4]]) or more
        self._try(self._probe, channels)
        self._try(self._fire_timers)
        self._try(self._fetch_files)
        self._try(self._upkeep)
        return bool(more)

    def _try(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Do one step and return its result; None if the database refuses it.

        One row that is locked for too long must not keep the other steps from their work.
        """
        try:
            return step(*arguments)
        except (psycopg.Error, NotStored) as error:
            log.warning("sweep step failed", step=step.__name__, error=type(error).__name__)
        return None

    # ------------------------------------------------------------ dead workers

    def _recover_dead(self) -> None:
        """Recover the lanes and replies of workers whose heartbeats stopped."""
        rows = runtime.read("SELECT incarnation, beat FROM worker WHERE NOT dead")
        for incarnation, beat in self._beats.stopped(rows):
            dead_workers.recover(self.writer, incarnation, beat)

    def _settle_left_over(self) -> None:
        """Settle replies in ``sending`` whose sender has no living Worker row: nobody else will."""
        for claim, _ in self._claims.stopped(runtime.read(LEFT_OVER)):
            dead_workers.settle(self.writer, claim)

    # ------------------------------------------------------------ due

    def _claim_due(self, kind: Work, channels: Sequence[Due]) -> bool:
        """Claim due lanes, as many as their tenants may leave hints, and wake them.

        Return True if more may be due. Channels that are paused are left out.
        """
        by_tenant: dict[int, list[int]] = collections.defaultdict(list)
        for channel_id, tenant_id, bot in channels:
            if not pauses.is_stopped(*pauses.keys_of(kind.activity, bot, channel_id, tenant_id)):
                by_tenant[tenant_id].append(channel_id)
        try:
            rooms = doorbell.rooms(kind, list(by_tenant))
        except publisher.AWAY as error:
            log.warning("the broker is away: working without", error=type(error).__name__)
            every = [channel_id for ids in by_tenant.values() for channel_id in ids]
            return bool(every) and self._claim(
                kind, every, DIRECTLY if self._has_free_thread(kind) else 0, self._do_directly
            )
        more = [self._claim(kind, ids, rooms[tenant], self._wake) for tenant, ids in by_tenant.items()]
        return any(more)

    def _claim(self, kind: Work, channels: list[int], room: int, wake: Wake) -> bool:
        """Claim at most ``room`` due lanes of these channels, and wake them.

        A claim moves the lane's due time 10 s ahead, so that no other sweeper takes it. Shuffled:
        if there are more channels than room, each has its turn in some round.
        Return True if more may be due.
        """
        if room <= 0:
            return True
        random.shuffle(channels)
        share = max(1, room // len(channels))
        values = {"channels": channels, "per_channel": share, "all_in": room}
        claimed = runtime.execute(sql("claim_due" if kind == Work.HANDLE else "claim_send_due"), values)
        failpoint("S1")
        if claimed:
            wake(kind, claimed)
        return len(claimed) >= share

    def _wake(self, kind: Work, claimed: Sequence[Any]) -> None:
        """Wake claimed lanes. If Redis does not answer, handle or deliver them in this process."""
        hints: dict[int, list[int]] = collections.defaultdict(list)
        for lane, tenant_id in claimed:
            hints[tenant_id].append(lane)
        try:
            doorbell.ring(kind, hints)
            failpoint("S2")
        except publisher.AWAY as error:
            log.warning("the broker is away: working without", error=type(error).__name__)
            self._do_directly(kind, claimed)

    # ------------------------------------------------------------ without Redis

    def _has_free_thread(self, kind: Work) -> bool:
        """Return True if a thread of this process is free for ``kind``: else claim nothing."""
        room = self._free_threads[kind].acquire(blocking=False)
        if room:
            self._free_threads[kind].release()
        return room

    def _do_directly(self, kind: Work, claimed: Sequence[Any], probe: bool = False) -> None:
        """Handle or deliver, in this process, the lanes that no living worker has in hand."""
        kinds = [Work.SEND] if kind == Work.SEND else [Work.HANDLE, Work.SWEEP]
        rows = runtime.read("SELECT running FROM worker WHERE NOT dead AND kind = ANY (%(kinds)s)", {"kinds": kinds})
        running = {lane for (lanes_of_one,) in rows for lane in lanes_of_one}
        mine = [lane for lane, _ in claimed if lane not in running]
        if mine and self._free_threads[kind].acquire(blocking=False):
            self._direct.submit(self._run_directly, kind, mine, probe)

    def _run_directly(self, kind: Work, lanes: list[int], probe: bool) -> None:
        """Handle or deliver without Redis locks: each COMMIT checks that the lane is as read."""
        try:
            if kind == Work.HANDLE:
                handler = self.engines.make_handler()
                handler.handle(lanes, probe=probe, locked=False)
                handler.has_room(PATIENCE_SECONDS, woken=False)
            else:
                self.engines.make_sender().send(lanes, probe=probe, locked=False)
        finally:
            self._free_threads[kind].release()

    # ------------------------------------------------------------ probes, timers, upkeep

    def _probe(self, channels: Sequence[Any]) -> None:
        """Try a lane of each channel of a pause whose probe is due: a success ends the pause.

        Where only one or two members have failed, one that has not is tried without waiting for the
        probe (not ``due``): of a channel another lane, of a bot a lane of another channel.
        """
        for scope, target, stops, since, failed, due in runtime.execute(sql("claim_probes")):
            key, sending = pauses.Key(scope, target, stops), stops == Work.SEND.activity
            ids = [row[0] for row in channels if _may_probe(key, *row[:3])]
            if scope == pauses.BOT and not due:
                ids = [channel for channel in ids if channel not in failed]
            values = {"channels": ids, "since": since, "sending": sending, "untried": not due, "many": PROBES}
            found = runtime.read(sql("find_probe"), values)
            if found:
                self._publish_probe(Work.SEND if sending else Work.HANDLE, found)

    def _publish_probe(self, kind: Work, found: Sequence[Any]) -> None:
        """Publish a probe of these lanes; without a broker, try them in this process."""
        try:
            publisher.probe(kind, [lane for lane, _ in found])
        except publisher.AWAY as error:
            log.warning("the broker is away: working without", error=type(error).__name__)
            self._do_directly(kind, found, probe=True)

    def _fire_timers(self) -> None:
        """Turn due timers into messages, unless this may be a copy of another database."""
        if installation.held():
            return
        for (timer,) in runtime.read(timers.TIMERS_DUE):
            self.writer.write(timers.TIMERS, timer, timeout=5.0)

    def _fetch_files(self) -> None:
        """Wake channels whose files nobody fetches; without Redis, fetch in this process. A copy fetches none."""
        if installation.held():
            return
        hints: dict[int, list[int]] = collections.defaultdict(list)
        for channel_id, tenant_id in runtime.read(sql("find_files_due")):
            hints[tenant_id].append(channel_id)
        try:
            if hints:
                doorbell.ring(FETCH, hints)
        except publisher.AWAY as error:
            log.warning("the broker is away: working without", error=type(error).__name__)
            fetching.fetcher().fetch([channel_id for ids in hints.values() for channel_id in ids])

    def _upkeep(self) -> None:
        """Ask for the upkeep every ``UPKEEP_SECONDS``: as a task, whose result is kept, or here."""
        if (now := time.monotonic()) < self._upkeep_at:
            return
        self._upkeep_at = now + UPKEEP_SECONDS
        try:
            publisher.maintain()
        except publisher.AWAY as error:
            log.warning("upkeep not asked for", error=type(error).__name__)
            self._direct.submit(self._try, maintenance.run)


def _may_probe(key: pauses.Key, channel_id: int, tenant_id: int, bot: str) -> bool:
    """Return True if ``key`` pauses this channel and staff have not stopped it too."""
    keys = pauses.keys_of(key.stops, bot, channel_id, tenant_id)
    return key in keys and not pauses.is_stopped(*keys, by_staff=True)
