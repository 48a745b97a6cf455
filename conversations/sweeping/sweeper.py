"""Finds whatever stayed behind, from Postgres alone. Several may run; they share the work by what they claim.

    deaths    workers whose beat stopped: their lanes and replies are due at once, their locks are freed
    left over replies in sending that bear no living sender's name
    due       lanes with something to handle, lanes with replies to deliver: claimed, then woken
    probes    one conversation of what is paused is tried now and then
    timers    due timers become messages of their lanes
    upkeep    partitions, retention (``maintenance``)

With Redis away it gives what it claims to the same handling and sending code in its own threads.
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

from conversations import installation
from conversations.concurrency import vital_thread
from conversations.contracts import Work
from conversations.delivering.sender import Sender
from conversations.errors import CoreError, NotStored
from conversations.failpoints import failpoint
from conversations.handling.handler import Handler
from conversations.lanes import pauses
from conversations.postgres import committer, database
from conversations.postgres.sql_files import sql
from conversations.sweeping import dead_workers, maintenance, timers
from conversations.sweeping.heartbeats import Beats
from conversations.waking import wake
from conversations.waking.queues import queue_name, queue_names

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 2.0
BUSY_SECONDS = 0.2  # between sweeps while there is more than the queues may take
DIRECTLY = 512  # lanes at once, with Redis away
UPKEEP_SECONDS = 600.0

AWAY = (redis.RedisError, KombuError, AMQPError, OSError)  # a broker: Redis, or RabbitMQ

Capacity = dict[str, int]
LEFT_OVER = """SELECT DISTINCT claimed_by, 0 FROM reply r WHERE status = 'sending'
                 AND NOT EXISTS (SELECT FROM worker w WHERE w.incarnation = r.claimed_by AND NOT w.dead)"""


class Engines(Protocol):
    """What works through lanes in this very process, while Redis is away."""

    def make_handler(self) -> Handler: ...

    def make_sender(self) -> Sender: ...


class Sweeper:
    """The sweeper of one process."""

    def __init__(self, writer: committer.Committer, engines: Engines) -> None:
        self.writer, self.engines = writer, engines
        self._beats = Beats()
        self._claims = Beats()
        self._producer: Producer | None = None
        self._direct = ThreadPoolExecutor(4, thread_name_prefix="direct")
        self._directly = {Work.HANDLE: threading.Semaphore(2), Work.SEND: threading.Semaphore(2)}
        self._upkeep_at = time.monotonic() + 5.0

    def start(self) -> None:
        vital_thread("sweep", self._run)

    def _run(self) -> None:
        while True:
            pause = SWEEP_SECONDS
            try:
                pause = BUSY_SECONDS if self.sweep() else SWEEP_SECONDS
            except (psycopg.Error, CoreError) as error:
                self._forget()
                log.warning("sweep cut short", error=type(error).__name__)
            time.sleep(pause)

    def _forget(self) -> None:
        """We saw nothing for a while: nobody is dead for that."""
        self._beats.forget()
        self._claims.forget()

    def sweep(self) -> bool:
        """One round; True when there is more than the queues may take."""
        self._try(self._bury_dead)
        self._try(self._settle_left_over)
        capacity = self._measure_capacity()
        channels = database.read(sql("find_due"))
        more = self._try(self._claim_due, Work.HANDLE, [row[:3] for row in channels if row[3]], capacity)
        more = self._try(self._claim_due, Work.SEND, [row[:3] for row in channels if row[4]], capacity) or more
        self._try(self._probe, channels, capacity)
        self._try(self._fire_timers)
        self._try(self._upkeep, capacity)
        return bool(more)

    def _try(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """A step that the database refuses (a row is held too long) must not keep the others from theirs."""
        try:
            return step(*arguments)
        except (psycopg.Error, NotStored) as error:
            log.warning("sweep step put off", step=step.__name__, error=type(error).__name__)
        return None

    # ------------------------------------------------------------ deaths

    def _bury_dead(self) -> None:
        rows = database.read("SELECT incarnation, beat FROM worker WHERE NOT dead")
        for incarnation, beat in self._beats.stopped(rows):
            dead_workers.bury(self.writer, incarnation, beat)

    def _settle_left_over(self) -> None:
        """Replies in sending whose sender is gone without a grave: its row was removed, or who buried it died."""
        for claim, _ in self._claims.stopped(database.read(LEFT_OVER)):
            dead_workers.settle(self.writer, claim)

    # ------------------------------------------------------------ due

    def _measure_capacity(self) -> Capacity | None:
        """How many more wakes each queue may take; None with Redis away."""
        try:
            if self._producer is None:
                self._producer = wake.open_producer()
            names = queue_names(Work.HANDLE) + queue_names(Work.SEND)
            return {name: wake.WAITING - wake.queue_length(self._producer, name) for name in names}
        except AWAY as error:
            self._drop_producer(error)
            return None

    def _claim_due(self, kind: Work, channels: Sequence[Any], capacity: Capacity | None) -> bool:
        """Claim what is due, as much as its queue may take, and hand it on; True when there is more.

        The channels of a queue share its room, so that one tenant's backlog stands before nobody else's.
        """
        by_queue: dict[str, list[int]] = collections.defaultdict(list)
        for channel_id, tenant_id, bot in channels:
            if not self._stopped(kind, channel_id, tenant_id, bot):
                by_queue[queue_name(kind, tenant_id) if capacity is not None else ""].append(channel_id)
        more = False
        for name, ids in by_queue.items():
            room = max(0, capacity[name]) * wake.IDS if capacity is not None else DIRECTLY
            more = self._claim(kind, ids, room, capacity) or more
        return more

    def _claim(self, kind: Work, channels: list[int], room: int, capacity: Capacity | None) -> bool:
        if not room or (capacity is None and not self._may_do_directly(kind)):
            return True
        random.shuffle(channels)
        share = max(1, room // len(channels))
        values = {"channels": channels, "per_channel": share, "all_in": room}
        claimed = database.execute(sql("claim_due" if kind == Work.HANDLE else "claim_send_due"), values)
        failpoint("S1")
        if claimed:
            self._publish(kind, claimed, capacity)
        return len(claimed) >= share

    def _stopped(self, kind: Work, channel_id: int, tenant_id: int, bot: str) -> bool:
        if kind == Work.HANDLE:
            return pauses.is_stopped(*pauses.handling_keys(bot, channel_id, tenant_id))
        return pauses.is_stopped(*pauses.sending_keys(channel_id, tenant_id))

    def _publish(self, kind: Work, claimed: Sequence[Any], capacity: Capacity | None, *, probe: bool = False) -> None:
        """Wakes, a queue's lanes together; what could not be published is done here."""
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
        """A connection that failed once is not used again."""
        self._producer = None
        log.warning("the broker is away: working without", error=type(error).__name__)

    # ------------------------------------------------------------ without Redis

    def _may_do_directly(self, kind: Work) -> bool:
        room = self._directly[kind].acquire(blocking=False)
        if room:
            self._directly[kind].release()
        return room

    def _do_directly(self, kind: Work, lanes: Sequence[int], probe: bool) -> None:
        """The same code, in this process, for what no living worker has in hand."""
        kinds = [Work.SEND] if kind == Work.SEND else [Work.HANDLE, Work.SWEEP]
        rows = database.read("SELECT running FROM worker WHERE NOT dead AND kind = ANY (%(kinds)s)", {"kinds": kinds})
        running = {lane for (lanes_of_one,) in rows for lane in lanes_of_one}
        mine = [lane for lane in lanes if lane not in running]
        if mine and self._directly[kind].acquire(blocking=False):
            self._direct.submit(self._run_directly, kind, mine, probe)

    def _run_directly(self, kind: Work, lanes: list[int], probe: bool) -> None:
        try:
            if kind == Work.HANDLE:
                self.engines.make_handler().handle(lanes, probe=probe, locked=False)
            else:
                self.engines.make_sender().send(lanes, probe=probe, locked=False)
        finally:
            self._directly[kind].release()

    # ------------------------------------------------------------ probes, timers, upkeep

    def _probe(self, channels: Sequence[Any], capacity: Capacity | None) -> None:
        for scope, target, stops in database.execute(sql("claim_probes")):
            sending = stops == Work.SEND.activity
            ids = [row[0] for row in channels if _may_probe(pauses.Key(scope, target, stops), *row[:3])]
            found = database.read(sql("find_probe"), {"channels": ids, "sending": sending})
            if found:
                self._publish(Work.SEND if sending else Work.HANDLE, found, capacity, probe=True)

    def _fire_timers(self) -> None:
        if installation.held():
            return
        for (timer,) in database.read(timers.TIMERS_DUE):
            self.writer.write(timers.TIMERS, timer, timeout=5.0)

    def _upkeep(self, capacity: Capacity | None) -> None:
        now = time.monotonic()
        if now >= self._upkeep_at:
            self._upkeep_at = now + UPKEEP_SECONDS
            self._ask_for_upkeep(capacity)

    def _ask_for_upkeep(self, capacity: Capacity | None) -> None:
        """Upkeep is a Celery task, so that its results are kept; without Redis it runs here."""
        try:
            if capacity is not None and self._producer is not None:
                wake.maintain(self._producer)
                return
        except AWAY as error:
            log.warning("upkeep not asked for", error=type(error).__name__)
        maintenance.run()


def _may_probe(key: pauses.Key, channel_id: int, tenant_id: int, bot: str) -> bool:
    """Whether ``key`` stops this channel, and nothing else does: a probe never goes through another stop."""
    if key.stops == Work.SEND.activity:
        keys = pauses.sending_keys(channel_id, tenant_id)
    else:
        keys = pauses.handling_keys(bot, channel_id, tenant_id)
    return key in keys and not pauses.is_stopped(*(other for other in keys if other != key))
