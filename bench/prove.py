"""``make prove``: the same messages through this product and through a plain pipeline, while things break.

2,000 messages of 40 people; each webhook is sent twice. Meanwhile Redis is emptied every second, and every 3 s a
process of the worker, chosen at random, gets ``kill -9``. A worker whose main process died is started again, as a
hosting platform does. Ends with 1 if this product lost a message or swapped two.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice

import psutil
import redis

from bench.compared import PLAIN_WORKER, plain_system, start_plain_web
from bench.stack import Ours, System
from bench.world import People, Stream, World
from botproject.local.__main__ import procfile
from tests.kit.guard import watch_over_this_process

MESSAGES = 2_000
PEOPLE = 40
# Messages a second. Larger: the plain pipeline cannot keep up even while nothing breaks.
RATE = 50.0
COPIES = 2
FLUSH_SECONDS = 1.0
KILL_SECONDS = 3.0
# Seconds between two lines of progress.
TELL_SECONDS = 5.0
# Seconds without a reply after which what is unanswered counts as lost. Our slowest recovery takes 20 s.
QUIET_SECONDS = 30.0
# Seconds for a part of a run. A pipeline that takes longer does not work at all.
LONGEST_SECONDS = 600.0


LEGEND = """
plain pipeline  a Django view, a Celery task that handles, one that delivers, and a Redis lock for each person, with
                Redis as broker (bench/plain). Its tasks live in Redis: what is flushed is forgotten
accepted        messages whose webhook was answered 200; each was sent twice
lost            accepted, and not answered within 30 s after the last reply, with nothing broken any more
out of order    answered after a later message of the same person
doubled         answered more than once: the platform takes no idempotency key (as Telegram), so a reply is sent
                again if its sender was killed during the call
slowest answer  from the webhook to the reply, while things break
"""


class Platform(World):
    """A world that remembers every reply that arrived, and says how far it is."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: defaultdict[str, list[int]] = defaultdict(list)  # by person: numbers of the answered messages
        self.last_reply = time.monotonic()

    def note(self, user: str, number: int) -> None:
        super().note(user, number)
        self.arrived[user].append(number)
        self.last_reply = time.monotonic()

    def is_quiet(self) -> bool:
        return time.monotonic() - self.last_reply > QUIET_SECONDS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to the accepted messages of one pipeline. ``slowest`` is in seconds."""

    name: str
    accepted: int
    lost: int
    swapped: int
    doubled: int
    slowest: float

    @property
    def broken(self) -> bool:
        return bool(self.lost or self.swapped)


def outcome(name: str, platform: Platform, stream: Stream) -> Outcome:
    first = {user: list(dict.fromkeys(numbers)) for user, numbers in platform.arrived.items()}
    return Outcome(
        name=name,
        accepted=stream.awaited,
        lost=stream.awaited - sum(map(len, first.values())),
        swapped=sum(map(swapped, first.values())),
        doubled=sum(map(len, platform.arrived.values())) - sum(map(len, first.values())),
        slowest=max(stream.replies, default=float("nan")),
    )


def swapped(numbers: list[int]) -> int:
    """Return how many of a person's replies arrived after the reply to a later message."""
    greatest, found = 0, 0
    for number in numbers:
        found += number < greatest
        greatest = max(greatest, number)
    return found


# ---------------------------------------------------------------- what breaks


class Trouble:
    """A thread that keeps the worker running, and breaks things between ``begin`` and ``end``."""

    def __init__(self, system: System, worker: str, chance: random.Random) -> None:
        self._system, self._worker, self._chance = system, worker, chance
        self._redis = redis.Redis.from_url(system.env["REDIS_URL"])
        self._over = threading.Event()
        self._breaking = False
        self._thread = threading.Thread(target=self._run, name="trouble")
        self.flushes = self.kills = 0

    def __enter__(self) -> Trouble:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self) -> None:
        self._breaking = True

    def end(self) -> None:
        self._breaking = False

    def _run(self) -> None:
        flush, kill = Every(FLUSH_SECONDS), Every(KILL_SECONDS)
        while not self._over.wait(0.1):
            self._keep_running()
            if self._breaking and flush.due():
                self._redis.flushall()
                self.flushes += 1
            if self._breaking and kill.due():
                self._kill_one()

    def _keep_running(self) -> None:
        main = self._system.running["worker"]
        if main.poll() is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(main.pid, signal.SIGKILL)
            self._system.start("worker", self._worker)

    def _kill_one(self) -> None:
        main = psutil.Process(self._system.running["worker"].pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._chance.choice([main, *main.children(recursive=True)]).kill()
            self.kills += 1


class Every:
    """True at most once in ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        due = time.monotonic() - self._last >= self._seconds
        if due:
            self._last = time.monotonic()
        return due


# ---------------------------------------------------------------- the two pipelines


def ours(seed: int, messages: int) -> Outcome:
    platform = Platform()
    with Ours("prove") as system:
        system.start_workers()
        people = system.people(system.add_channel(platform.api), PEOPLE, copies=COPIES)
        return prove("this product", platform, system, procfile()["worker"], people, seed, messages)


def plain(seed: int, messages: int) -> Outcome:
    platform = Platform()
    with plain_system("prove-plain", platform.api) as system:
        start_plain_web(system)
        system.start("worker", PLAIN_WORKER)
        people = People(path="/webhook/", secret="", first=1_000_000, count=PEOPLE, copies=COPIES)
        return prove("plain pipeline", platform, system, PLAIN_WORKER, people, seed, messages)


def prove(
    name: str, platform: Platform, system: System, worker: str, people: People, seed: int, messages: int
) -> Outcome:
    """Send the messages while things break, then wait until all are answered or nothing moves any more."""
    stream = Stream(name, system.port, islice(people, messages * COPIES), connections=PEOPLE, rate=RATE * COPIES)
    with Trouble(system, worker, random.Random(seed)) as trouble:

        def tell() -> None:
            answered = sum(len(set(numbers)) for numbers in platform.arrived.values())
            print(f"  {name}: {stream.awaited:,} of {messages:,} sent, {answered:,} answered;"
                  f" {trouble.flushes} x FLUSHALL, {trouble.kills} x kill -9", flush=True)  # fmt: skip
            platform.after(TELL_SECONDS, tell)

        platform.after(TELL_SECONDS, tell)
        trouble.begin()
        platform.run(stream, seconds=LONGEST_SECONDS)
        trouble.end()
        print(f"  {name}: nothing is broken any more; waiting for what is still to be answered", flush=True)
        platform.last_reply = time.monotonic()
        platform.run(until=lambda: not platform.expected or platform.is_quiet(), seconds=LONGEST_SECONDS)
    return outcome(name, platform, stream)


# ---------------------------------------------------------------- the table


def print_table(outcomes: list[Outcome]) -> None:
    rows = [("", "accepted", "lost", "out of order", "doubled", "slowest answer")]
    rows += [(each.name, f"{each.accepted:,}", f"{each.lost:,}", f"{each.swapped:,}", f"{each.doubled:,}",
              f"{each.slowest:.1f} s") for each in outcomes]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
              sep="  ")  # fmt: skip
    print(LEGEND)
    ours = outcomes[0]
    if ours.broken:
        print(f"The promise is broken: {ours.name} lost {ours.lost} and swapped {ours.swapped}.")
    else:
        print(f"The promise is kept: {ours.name} lost nothing and swapped nothing.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.prove", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="messages for each pipeline (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6),
                        help="chooses which processes are killed (random)")  # fmt: skip
    chosen = parser.parse_args()
    watch_over_this_process()
    # On SIGTERM, stop the processes that this one started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{chosen.messages:,} messages of {PEOPLE} people, each sent {COPIES} times;"
          f" FLUSHALL every {FLUSH_SECONDS:g} s;"
          f" kill -9 of a worker's process every {KILL_SECONDS:g} s; seed {chosen.seed}", flush=True)  # fmt: skip
    outcomes = [run(chosen.seed, chosen.messages) for run in (ours, plain)]
    print_table(outcomes)
    return int(outcomes[0].broken)


if __name__ == "__main__":
    sys.exit(main())
