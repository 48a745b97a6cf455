"""Measures whether the processors have no time left for this process.

A rest between batches makes them larger, so that a message costs less. Only then is it worth its
wait: while processors are idle, a batch of one delays nobody.

Two figures decide, each compared with its last reading: how long the processors that this process
may use were idle (/proc/stat), and whether the process's cgroup was stopped because it had used up
its quota (cpu.stat). A system that has neither is never short.

Tried on 2 cores (Linux 6.18) and not used: /proc/pressure/cpu, and the time that our threads wait for
a processor (/proc/PID/task/*/schedstat). At 100 messages a second both rise to 0.2 and 0.4 with 60 %
of the processors idle, because many threads wake at once, and only to 0.55 and 0.6 with none idle.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path
from typing import NamedTuple

from conversations.concurrency import NEVER, Fresh

# Seconds between two readings, at least. Larger: a change is seen later. Smaller: too few ticks of
# /proc/stat (10 ms) to tell, and each process spends more than 0.1 % of a core on reading.
PERIOD_SECONDS = 0.25
# Seconds between two readings, at most; a longer time says nothing about now. Larger: old load still
# counts. Smaller: a process that seldom asks never knows.
VALID_SECONDS = 2.0
# Share of the processors' time that is idle when they are short. Larger: rests begin while work could
# still be done at once. Smaller: one busy thread less than there are processors hides a full machine.
IDLE_SHARE = 0.1
# Seconds of a rest between batches. Larger: each message waits longer, and costs less. Smaller:
# batches hardly grow. Tried on 2 cores at 400 and 800 messages a second: 5 and 10 ms differed by less
# than two runs of either.
REST_SECONDS = 0.005


class Reading(NamedTuple):
    """Counters at a moment (of the monotonic clock), and what they said, compared with the last ones."""

    at: float = NEVER
    idle: int = 0  # ticks since the machine started, of all processors that this process may use
    total: int = 0
    stops: int = 0  # how often the quota was used up
    short: bool = False


def is_short() -> bool:
    """Return True while no processor time is left. Cheap enough to ask before each batch."""
    return _latest().short


def rest_seconds() -> float:
    """Return for how long to rest before the next batch: 0 while a processor is idle."""
    return REST_SECONDS if is_short() else 0.0


def compared(last: Reading, now: Reading) -> bool:
    """Return True if no processor time was left between two readings."""
    if now.at - last.at > VALID_SECONDS:
        return False
    return now.stops > last.stops or now.idle - last.idle < IDLE_SHARE * (now.total - last.total)


def _read(last: Reading) -> Reading:
    now = Reading(time.monotonic(), *_ticks(), _stops())
    return now._replace(short=compared(last, now))


_latest = Fresh(_read, PERIOD_SECONDS, Reading())


def _ticks() -> tuple[int, int]:
    """Return the idle and all ticks of the processors that this process may use, 0 if unknown."""
    idle = total = 0
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/stat").read_text().partition("intr")[0].splitlines()
        usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        for name, *fields in map(str.split, lines):
            if name in usable:
                ticks = list(map(int, fields[:8]))  # the others are parts of these
                idle += ticks[3] + ticks[4]  # also idle: waiting for the disk
                total += sum(ticks)
    return idle, total


def _stops() -> int:
    """Return how often this process's cgroup was stopped by its quota, 0 if unknown."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(_quota().read_text().partition("nr_throttled ")[2].split()[0])
    return 0


@functools.cache
def _quota() -> Path:
    """Return the cpu.stat of this process's cgroup, of version 2 or 1; it may not exist."""
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    for _, controllers, path in (group.split(":", 2) for group in groups):
        for folder in (f"/sys/fs/cgroup/{controllers}{path}", f"/sys/fs/cgroup/{controllers}"):  # a container's: /
            file = Path(folder, "cpu.stat")
            if controllers.partition(",")[0] in ("", "cpu") and file.exists():
                return file
    return Path("/nonexistent")
