"""Finds whatever was left behind, from Postgres alone. Several sweepers share the work by claiming
rows.

One round:

1. Workers whose heartbeat stopped are marked dead: their lanes and replies are due, locks freed.
2. Replies in ``sending`` that no living sender has claimed are settled.
3. Lanes with messages to handle or replies to deliver are claimed, then woken.
4. Of what is paused, conversations are tried now and then (probes).
5. Due timers become messages of their lanes.
6. Partitions and retention (``maintenance``).

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
import redis
import structlog
from amqp.exceptions import AMQPError
from kombu import Producer
from kombu.exceptions import KombuError

from conversations import installation, runtime
from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.delivering.sender import Sender
from conversations.errors import CoreError, NotStored
from conversations.failpoints import failpoint
from conversations.handling.handler import Handler
from conversations.lanes import pauses
from conversations.postgres import committer
from conversations.postgres.sql_files import sql
from conversations.sweeping import dead_workers, maintenance, timers
from conversations.sweeping.heartbeats import Beats
from conversations.waking import wake
from conversations.waking.queues import queue_name, queue_names

log = structlog.get_logger(__name__)

# Seconds between two rounds. Longer: a lane whose wake was lost waits longer; shorter: more load on
# Postgres.
SWEEP_SECONDS = 2.0
# Seconds between two rounds while more lanes are due than the queues may take. Longer: a backlog
# drains more slowly; shorter: more queries that find the queues still full.
BUSY_SECONDS = 0.2
# Most lanes claimed at once while Redis is away. Larger: fewer rounds, and more lanes that wait in
# this process although another one is free; smaller: more rounds.
DIRECTLY = 512
# Channels of a paused bot of which a lane is tried at once, at most. Larger: more calls of a bot that
# still fails; smaller: a bot that fails in some channels only may stop the others for longer.
PROBES = 8
# Seconds between two rounds of upkeep. Longer: old rows stay longer and may come faster than they
# are deleted; shorter: more queries that find nothing.
UPKEEP_SECONDS = 600.0

# The exceptions of a broker (Redis or RabbitMQ) that does not answer.
AWAY = (redis.RedisError, KombuError, AMQPError, OSError)

Capacity = dict[str, int]  # how many more wakes each queue may take
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
        self._producer: Producer | None = None
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
                self._forget()
                log.warning("sweep cut short", error=type(error).__name__)
            time.sleep(pause)

    def _forget(self) -> None:
        """Forget all heartbeats: while we could not read them, they may have gone on."""
        self._beats.forget()
        self._claims.forget()

    def sweep(self) -> bool:
        """Do one round. Return True if more is due than the queues may take."""
        self._try(self._recover_dead)
        self._try(self._settle_left_over)
        capacity = self._measure_capacity()
        channels = runtime.read(sql("find_due"))
        more = self._try(self._claim_due, Work.HANDLE, [row[:3] for row in channels if row[3]], capacity)
        more = self._try(self._claim_due, Work.SEND, [row[:3] for row in channels if row[4]], capacity) or more
        self._try(self._probe, channels, capacity)
        self._try(self._fire_timers)
        self._try(self._upkeep, capacity)
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

    def _measure_capacity(self) -> Capacity | None:
        """Return how many more wakes each Celery queue may take; None while the broker is away."""
        try:
            if self._producer is None:
                self._producer = wake.open_producer()
            names = queue_names(Work.HANDLE) + queue_names(Work.SEND)
            return {name: wake.WAITING - wake.queue_length(self._producer, name) for name in names}
        except AWAY as error:
            self._drop_producer(error)
            return None

    def _claim_due(self, kind: Work, channels: Sequence[Any], capacity: Capacity | None) -> bool:
        """Claim due lanes, as many as their queues may take, and publish wakes for them.

        Return True if more may be due. Channels that are paused are left out. The channels of a
        queue share its capacity, so that one tenant's backlog does not delay another tenant.
        """
        by_queue: dict[str, list[int]] = collections.defaultdict(list)
        for channel_id, tenant_id, bot in channels:
            if not pauses.is_stopped(*pauses.keys_of(kind.activity, bot, channel_id, tenant_id)):
                by_queue[queue_name(kind, tenant_id) if capacity is not None else ""].append(channel_id)
        more = False
        for name, ids in by_queue.items():
            room = max(0, capacity[name]) * wake.IDS if capacity is not None else DIRECTLY
            more = self._claim(kind, ids, room, capacity) or more
        return more

    def _claim(self, kind: Work, channels: list[int], room: int, capacity: Capacity | None) -> bool:
        """Claim at most ``room`` due lanes of the channels of one queue, and publish them.

        A claim moves the lane's due time 10 s ahead, so that no other sweeper takes it. Shuffled:
        if there are more channels than room, each has its turn in some round.
        Return True if more may be due.
        """
        if not room or (capacity is None and not self._has_free_thread(kind)):
            return True
        random.shuffle(channels)
        share = max(1, room // len(channels))
        values = {"channels": channels, "per_channel": share, "all_in": room}
        claimed = runtime.execute(sql("claim_due" if kind == Work.HANDLE else "claim_send_due"), values)
        failpoint("S1")
        if claimed:
            self._publish(kind, claimed, capacity)
        return len(claimed) >= share

    def _publish(self, kind: Work, claimed: Sequence[Any], capacity: Capacity | None, *, probe: bool = False) -> None:
        """Publish wakes for the claimed lanes, by queue.

        If the broker does not answer, this process handles or delivers the rest itself. A probe
        may exceed a full queue, but not without bound where no worker takes anything.
        """
        by_queue: dict[str, list[int]] = collections.defaultdict(list)
        for lane, tenant_id in claimed:
            by_queue[queue_name(kind, tenant_id)].append(lane)
        wakes = [
            (name, lanes[start : start + wake.IDS])
            for name, lanes in by_queue.items()
            for start in range(0, len(lanes), wake.IDS)
        ]
        while wakes and capacity is not None and self._producer is not None:
            name, ids = wakes[-1]
            if capacity[name] <= -wake.WAITING:
                wakes.pop()
                continue
            try:
                wake.publish(self._producer, name, kind, ids, **({"probe": True} if probe else {}))
            except AWAY as error:
                self._drop_producer(error)
                break
            wakes.pop()
            capacity[name] -= 1
            failpoint("S2")
        if wakes:
            self._do_directly(kind, [lane for _, ids in wakes for lane in ids], probe)

    def _drop_producer(self, error: BaseException) -> None:
        """Forget a connection that failed: the next round opens another."""
        self._producer = None
        log.warning("the broker is away: working without", error=type(error).__name__)

    # ------------------------------------------------------------ without Redis

    def _has_free_thread(self, kind: Work) -> bool:
        """Return True if a thread of this process is free for ``kind``: else claim nothing."""
        room = self._free_threads[kind].acquire(blocking=False)
        if room:
            self._free_threads[kind].release()
        return room

    def _do_directly(self, kind: Work, lanes: Sequence[int], probe: bool) -> None:
        """Handle or deliver, in this process, the lanes that no living worker has in hand."""
        kinds = [Work.SEND] if kind == Work.SEND else [Work.HANDLE, Work.SWEEP]
        rows = runtime.read("SELECT running FROM worker WHERE NOT dead AND kind = ANY (%(kinds)s)", {"kinds": kinds})
        running = {lane for (lanes_of_one,) in rows for lane in lanes_of_one}
        mine = [lane for lane in lanes if lane not in running]
        if mine and self._free_threads[kind].acquire(blocking=False):
            self._direct.submit(self._run_directly, kind, mine, probe)

    def _run_directly(self, kind: Work, lanes: list[int], probe: bool) -> None:
        """Handle or deliver without Redis locks: each COMMIT checks that the lane is as read."""
        try:
            if kind == Work.HANDLE:
                self.engines.make_handler().handle(lanes, probe=probe, locked=False)
            else:
                self.engines.make_sender().send(lanes, probe=probe, locked=False)
        finally:
            self._free_threads[kind].release()

    # ------------------------------------------------------------ probes, timers, upkeep

    def _probe(self, channels: Sequence[Any], capacity: Capacity | None) -> None:
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
                self._publish(Work.SEND if sending else Work.HANDLE, found, capacity, probe=True)

    def _fire_timers(self) -> None:
        """Turn due timers into messages, unless this may be a copy of another database."""
        if installation.held():
            return
        for (timer,) in runtime.read(timers.TIMERS_DUE):
            self.writer.write(timers.TIMERS, timer, timeout=5.0)

    def _upkeep(self, capacity: Capacity | None) -> None:
        """Ask for the upkeep every ``UPKEEP_SECONDS``."""
        now = time.monotonic()
        if now >= self._upkeep_at:
            self._upkeep_at = now + UPKEEP_SECONDS
            self._ask_for_upkeep(capacity)

    def _ask_for_upkeep(self, capacity: Capacity | None) -> None:
        """Publish the upkeep as a task, whose result is kept; without a broker, do it here."""
        try:
            if capacity is not None and self._producer is not None:
                wake.maintain(self._producer)
                return
        except AWAY as error:
            log.warning("upkeep not asked for", error=type(error).__name__)
        maintenance.run()


def _may_probe(key: pauses.Key, channel_id: int, tenant_id: int, bot: str) -> bool:
    """Return True if ``key`` pauses this channel and staff have not stopped it too."""
    keys = pauses.keys_of(key.stops, bot, channel_id, tenant_id)
    return key in keys and not pauses.is_stopped(*keys, by_staff=True)
