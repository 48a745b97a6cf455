"""Finds whatever stayed behind, from Postgres alone. Several may run; they share the work by what they claim.

    deaths    workers whose beat stopped: their locks are freed, their lanes and replies are due at once
    due       lanes with something to handle, lanes with replies to deliver: claimed, then woken
    probes    one conversation of what is paused is tried now and then
    timers    due timers become messages of their lanes
    upkeep    partitions, retention (``maintenance``)

With Redis away it gives what it claims to the same handling and sending code in its own threads.
"""

from __future__ import annotations

import collections
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import redis
import structlog
from kombu import Producer
from kombu.exceptions import KombuError

from conversations import committer, database, installation, lock, maintenance, outbox, pauses, registry, wake
from conversations.errors import CoreError
from conversations.failpoints import failpoint
from conversations.sqlfiles import sql
from conversations.worker import HANDLE, SEND, Process

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 2.0
BUSY_SECONDS = 0.2  # between sweeps while there is more than one sweep may claim
DEAD_SECONDS = 6.0
CLAIM = 2_000
UPKEEP_SECONDS = 600.0

AWAY = (redis.RedisError, KombuError, OSError)


class Sweeper:
    """The sweeper of one process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._beats = Beats()
        self._producer: Producer | None = None
        self._direct = ThreadPoolExecutor(2, thread_name_prefix="direct")
        self._directly = 0
        self._upkeep_at = time.monotonic() + 5.0

    def start(self) -> None:
        threading.Thread(target=self._run, name="sweep", daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                pause = SWEEP_SECONDS
                try:
                    pause = BUSY_SECONDS if self.sweep() else SWEEP_SECONDS
                except (psycopg.Error, CoreError) as error:
                    self._beats.forget()  # we saw nothing for a while: nobody is dead for that
                    log.warning("sweep cut short", error=type(error).__name__)
                time.sleep(pause)
        except BaseException as error:
            log.critical("sweeper died", error=type(error).__name__, exc_info=True)
            committer.end_process()

    def sweep(self) -> bool:
        """One round; True when there is more than it could claim."""
        self._bury_dead()
        rooms = self._rooms()
        channels = database.read("SELECT id, tenant_id, bot FROM channel WHERE active")
        more = self._bring(HANDLE, channels, rooms)
        more = self._bring(SEND, channels, rooms) or more
        self._probe(channels, rooms)
        self._fire_timers()
        self._keep_up()
        return more

    # ------------------------------------------------------------ deaths

    def _bury_dead(self) -> None:
        for incarnation, beat in self._beats.stopped(database.read("SELECT incarnation, beat FROM worker WHERE NOT dead")):
            rows = database.execute(sql("mark_dead"), {"incarnation": incarnation, "beat": beat})
            if rows:
                self._take_over(incarnation, *rows[0])
        for (claim,) in database.read(sql("find_orphans")):
            self._settle_claimed(claim)

    def _take_over(self, incarnation: uuid.UUID, kind: str, running: list[int]) -> None:
        log.error("a worker died", incarnation=str(incarnation), kind=kind, lanes=len(running))
        for kind_of_lock in (lock.HANDLING, lock.SENDING):
            lock.free(kind_of_lock, str(incarnation), running)
        if running:
            database.execute(sql("revive_lanes"), {"ids": sorted(running), "suspects": kind == HANDLE})
            database.execute(sql("revive_sending"), {"ids": sorted(running)})
        self._settle_claimed(incarnation)

    def _settle_claimed(self, incarnation: uuid.UUID) -> None:
        """What it left in sending. Where this fails, its replies are found again as orphans."""
        settled = self.process.writer.write(CLAIMED, incarnation, timeout=5.0)
        lock.free(lock.SENDING, str(incarnation), settled)

    # ------------------------------------------------------------ due

    def _rooms(self) -> dict[str, int] | None:
        """How many more wakes each queue may take; None with Redis away."""
        try:
            if self._producer is None:
                self._producer = wake.open_producer()
            names = wake.queue_names(HANDLE) + wake.queue_names(SEND)
            return {name: wake.WAITING - wake.queue_length(self._producer, name) for name in names}
        except AWAY as error:
            self._producer = None
            log.warning("Redis is away: working without", error=type(error).__name__)
            return None

    def _bring(self, kind: str, channels: Sequence[Any], rooms: dict[str, int] | None) -> bool:
        """Claim what is due and hand it on; True when the claim was full."""
        if rooms is None and self._directly >= 2:
            return False
        stopped = [row[0] for row in channels if self._stopped(kind, *row) or not _room(rooms, kind, row[1])]
        values = {"stopped": stopped, "per_channel": CLAIM, "all_in": CLAIM}
        claimed = database.execute(sql("claim_due" if kind == HANDLE else "claim_send_due"), values)
        failpoint("S1")
        if claimed:
            self._hand_on(kind, claimed, rooms)
        return len(claimed) >= CLAIM

    def _stopped(self, kind: str, channel_id: int, tenant_id: int, bot: str) -> bool:
        if kind == HANDLE:
            return pauses.stopped(*pauses.handling_keys(bot, channel_id, tenant_id))
        return pauses.stopped(*pauses.sending_keys(channel_id, tenant_id))

    def _hand_on(self, kind: str, claimed: Sequence[Any], rooms: dict[str, int] | None, *, probe: bool = False) -> None:
        if rooms is None or self._producer is None:
            self._do_directly(kind, [row[0] for row in claimed], probe)
            return
        by_queue: dict[str, list[int]] = collections.defaultdict(list)
        for lane, tenant_id in claimed:
            by_queue[wake.queue_name(kind, tenant_id)].append(lane)
        try:
            for name, lanes in by_queue.items():
                for start in range(0, len(lanes), wake.IDS):
                    if rooms[name] <= 0 and not probe:
                        break
                    wake.publish(self._producer, name, kind, lanes[start : start + wake.IDS], **({"probe": True} if probe else {}))
                    rooms[name] -= 1
                    failpoint("S2")
        except AWAY as error:
            self._producer = None
            log.warning("wakes not published", error=type(error).__name__)

    def _do_directly(self, kind: str, lanes: Sequence[int], probe: bool) -> None:
        """With Redis away: the same code, in this process, for what no living worker has in hand."""
        running = {lane for row in database.read("SELECT running FROM worker WHERE NOT dead") for lane in row[0]}
        mine = [lane for lane in lanes if lane not in running]
        self._directly += 1

        def work() -> None:
            try:
                if kind == HANDLE:
                    self.process.make_handler().handle(mine, probe=probe, locked=False)
                else:
                    self.process.make_sender().send(mine, probe=probe, locked=False)
            finally:
                self._directly -= 1

        self._direct.submit(work)

    # ------------------------------------------------------------ probes, timers, upkeep

    def _probe(self, channels: Sequence[Any], rooms: dict[str, int] | None) -> None:
        for scope, target, stops in database.execute(sql("claim_probes")):
            ids = [row[0] for row in channels if target == {"bot": row[2], "channel": str(row[0]), "tenant": str(row[1])}[scope]]
            sending = stops == pauses.SENDING
            found = database.read(sql("find_probe"), {"channels": ids, "sending": sending})
            if found:
                self._hand_on(SEND if sending else HANDLE, found, rooms, probe=True)

    def _fire_timers(self) -> None:
        if installation.held():
            return
        due = database.read("SELECT id FROM timer WHERE due_at <= now() ORDER BY due_at LIMIT 100")
        for (timer,) in due:
            database.execute(sql("fire_timer"), {"id": timer})

    def _keep_up(self) -> None:
        now = time.monotonic()
        if now >= self._upkeep_at:
            self._upkeep_at = now + UPKEEP_SECONDS
            self._ask_for_upkeep()

    def _ask_for_upkeep(self) -> None:
        """Upkeep is a Celery task, so that its results are kept; without Redis it runs here."""
        try:
            from conversations.tasks import maintain

            maintain.apply_async(retry=False, expires=UPKEEP_SECONDS)
        except AWAY:
            maintenance.run()


def _room(rooms: dict[str, int] | None, kind: str, tenant_id: int) -> bool:
    return rooms is None or rooms[wake.queue_name(kind, tenant_id)] > 0


class Beats:
    """Watches beats by this process's own monotonic time; clocks are never compared."""

    def __init__(self) -> None:
        self._seen: dict[uuid.UUID, tuple[int, float]] = {}

    def stopped(self, rows: Sequence[tuple[uuid.UUID, int]]) -> list[tuple[uuid.UUID, int]]:
        """Those whose beat did not change for ``DEAD_SECONDS`` while we watched."""
        now = time.monotonic()
        before, self._seen = self._seen, {}
        stopped = []
        for incarnation, beat in rows:
            seen = before.get(incarnation)
            since = seen[1] if seen is not None and seen[0] == beat else now
            self._seen[incarnation] = (beat, since)
            if now - since > DEAD_SECONDS:
                stopped.append((incarnation, beat))
        return stopped

    def forget(self) -> None:
        self._seen.clear()


class ClaimedStream:
    """Settles what a dead sender left in sending."""

    name = "claimed"
    patient = False

    def lane(self, item: uuid.UUID) -> uuid.UUID:
        return item

    def mend(self, item: uuid.UUID, error: psycopg.Error) -> uuid.UUID | None:
        return None

    def write(self, connection: psycopg.Connection[Any], items: Sequence[uuid.UUID]) -> Sequence[Any]:
        results = []
        for claim in items:
            lives = committer.as_json(registry.key_lives())
            values = {"claim": claim, "key_life": lives, "attempts": outbox.ATTEMPTS}
            statements = {"lock": (sql("lock_claimed"), values), "settle": (sql("settle_claimed"), values)}
            results.append([row[0] for row in database.transaction(connection, statements)["settle"]])
        return results


CLAIMED = ClaimedStream()
