"""What every case needs: durations and sizes, turns, quiet runs, floods, sustained loads, paced loads."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bench.measures import Cost, Snapshot
from bench.stack import Channel, Ours, System
from bench.world import Request, Stream, StreamFailed, World, quantile

Done = Callable[[], bool]

CONNECTIONS = 128  # 64 for each web process
# Cores that other work on this machine may use during a run. Larger: more runs count, and their figures say less.
OTHERS_CORES = 0.3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Durations and sizes. ``SHORT`` only shows that everything works."""

    seconds: float = 6.0  # of one measurement
    runs: int = 3
    tries: int = 3  # of a run while other work uses more than OTHERS_CORES
    users: int = 10_000
    window: int = 1_000  # messages in flight at once, end to end
    rate: float = 500.0  # messages a second where a case says 500
    regulars: int = 2_000  # people who have written before
    b_writes: int = 340  # messages of tenant B in each of its runs
    backlog: int = 160_000  # so that over 100,000 are left when tenant B begins to write
    one_user: int = 10_000
    pages: int = 200
    timelines: int = 20
    sockets: int = 200  # of strangers who read or write slowly
    growth: float = 1.0  # of 1,000,000 conversations with 10 messages each
    warm: float = 3.0


SHORT = Scale(seconds=0.5, runs=1, tries=1, users=200, window=50, rate=40.0, regulars=50, b_writes=10, backlog=200,
              one_user=30, pages=6, timelines=2, sockets=6, growth=0.0005, warm=0.3)  # fmt: skip


@dataclass(kw_only=True)
class Result:
    """The result of a case."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, float]] = field(default_factory=dict)  # figures of what is compared, a row each
    samples: dict[str, list[float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a reader must know, such as runs that were thrown away


# ---------------------------------------------------------------- by turns

Measured = TypeVar("Measured")


def by_turns(
    runs: int, without: Callable[[], Measured], with_it: Callable[[], Measured]
) -> tuple[list[Measured], list[Measured]]:
    """Run ``without`` and ``with_it`` by turns, first and last without: a machine's speed changes by the minute."""
    ones, others = [without()], []
    for _ in range(runs):
        others.append(with_it())
        ones.append(without())
    return ones, others


def times(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median ratio of each of ``others`` to the measurements just before and just after it."""
    around = [statistics.mean(pair) for pair in itertools.pairwise(ones)]
    return statistics.median(other / one for one, other in zip(around, others, strict=True))


# ---------------------------------------------------------------- quiet runs


def undisturbed(scale: Scale, result: Result, what: str, measure: Callable[[], tuple[Measured, float]]) -> Measured:
    """Return the first of ``measure()`` and the cores that others used meanwhile.

    Where they used more than ``OTHERS_CORES`` the run is thrown away and repeated. The last of ``scale.tries`` is kept
    in any case. ``result`` notes each.
    """
    for again in range(scale.tries - 1, -1, -1):
        measured, others = measure()
        if others <= OTHERS_CORES:
            break
        fate = "thrown away, measured again" if again else f"kept, the last of {scale.tries} tries"
        result.notes.append(f"{what}: others used {others:.2f} cores; {fate}")
        print(f"  {result.notes[-1]}", flush=True)
    return measured


# ---------------------------------------------------------------- as fast as it goes


def flood(world: World, scale: Scale, make: Callable[[], Iterator[Request]], port: int, what: str) -> list[float]:
    """The rate of answered requests a second, at full speed; a warm-up, then ``scale.runs`` times ``scale.seconds``."""
    answered(world, make(), port, f"{what}, warm-up", min(2.0, scale.seconds))
    return [answered(world, make(), port, f"{what}, run {run + 1} of {scale.runs}", scale.seconds)
            for run in range(scale.runs)]  # fmt: skip


def answered(world: World, requests: Iterator[Request], port: int, what: str, seconds: float) -> float:
    """The rate of answered requests a second, at full speed."""
    stream = Stream(what, port, requests, connections=CONNECTIONS, seconds=seconds)
    took = world.run(stream, say=what)
    if not stream.answers:
        raise StreamFailed(f"{what}: nothing was answered; {dict(stream.statuses)}")
    return len(stream.answers) / took


def half_rate(world: World, scale: Scale, ours: Ours) -> Callable[[], Stream]:
    """Makes streams of webhooks at half of the maximum rate, which it measures first."""
    channel = ours.add_channel(world.api)
    rates = flood(world, scale, lambda: iter(ours.people(channel, scale.users)), ours.port, "the maximum")
    world.expected.clear()
    return lambda: Stream("half of it", ours.port, iter(ours.people(channel, scale.users)), connections=CONNECTIONS,
                          rate=max(rates) / 2)  # fmt: skip


@dataclass(kw_only=True)
class Sustained:
    """Replies a second at the platform, and the cost of a message meanwhile."""

    rate: float
    cost: Cost
    samples: list[float]  # replies in each second


def sustained(world: World, stream: Stream, system: System, *, seconds: float, warm: float, until: Done) -> Sustained:
    """Keep the window of ``stream`` full for a warm-up and ``seconds``; then wait until all work is done."""
    marks: list[tuple[float, int, Snapshot]] = []
    samples: list[tuple[float, int]] = []

    def mark() -> None:
        marks.append((time.monotonic(), world.replies, Snapshot(system)))
        stream.begin_measuring()

    def sample() -> None:
        samples.append((time.monotonic(), world.replies))

    stream.seconds = warm + seconds
    world.after(warm, mark)
    world.after(warm + seconds, mark)
    for second in range(int(stream.seconds) + 1):
        world.after(second, sample)
    world.run(stream, until=lambda: len(marks) == 2 and until(), say=stream.name)
    (began, replies, before), (ended, more, after) = marks
    rates = [(later[1] - sooner[1]) / (later[0] - sooner[0]) for sooner, later in itertools.pairwise(samples)]
    return Sustained(rate=(more - replies) / (ended - began), cost=Cost(before, after, more - replies), samples=rates)


def ours_sustained(world: World, scale: Scale, ours: Ours, channel: Channel, what: str, **people: int) -> Sustained:
    """The same, end to end, for our pipeline."""
    requests = iter(ours.people(channel, scale.users, **people))
    stream = Stream(what, ours.port, requests, connections=CONNECTIONS, window=scale.window)
    return sustained(world, stream, ours, seconds=scale.seconds, warm=scale.warm, until=all_done(world, ours))


# ---------------------------------------------------------------- at a given rate


def paced(world: World, scale: Scale, *streams: Stream, until: Done = lambda: True, seconds: float = 0.0) -> None:
    """Run each stream at its rate, for a warm-up and the measured time."""
    for stream in streams:
        stream.seconds = scale.warm + (seconds or 2 * scale.seconds)
        world.after(scale.warm, stream.begin_measuring)
    world.run(*streams, until=until, say=" and ".join(stream.name for stream in streams))


def all_done(world: World, ours: Ours) -> Done:
    """Return True if every message is answered and the answer is recorded."""
    return lambda: not world.expected and not ours.pending()


def milliseconds(values: list[float], share: float) -> float:
    return round(quantile(values, share) * 1000, 2)


def note_answers(result: Result, seconds: list[float], prefix: str) -> None:
    result.figures[f"{prefix}p50_ms"] = milliseconds(seconds, 0.5)
    result.figures[f"{prefix}p99_ms"] = milliseconds(seconds, 0.99)


def note_replies(result: Result, stream: Stream, prefix: str) -> None:
    note_answers(result, stream.measured_replies, prefix)


def wait(world: World, seconds: float) -> None:
    """Let the platform answer for this many seconds."""
    end = time.monotonic() + seconds
    world.run(until=lambda: time.monotonic() >= end)


def share_of_a_core(before: Snapshot, after: Snapshot) -> float:
    """The load generator's CPU in cores: near 1, it is the bottleneck and not the measured system."""
    return round((after.cpu["world"] - before.cpu["world"]) / (after.at - before.at), 2)
