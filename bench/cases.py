"""What is done to each system. A case returns figures; targets are judged over all of a run, in ``targets``."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.measures import Cost, Snapshot
from bench.stack import Ours, System
from bench.world import Request, Stream, StreamFailed, World, post, quantile, telegram
from botproject.local.__main__ import procfile

Done = Callable[[], bool]

USERS = 10_000
CONNECTIONS = 128  # 64 for each web process: as many as it has threads


@dataclass
class Scale:
    """How long and how much. ``SHORT`` only shows that everything works."""

    seconds: float = 6.0  # of one measurement
    runs: int = 3
    users: int = USERS
    window: int = 2_000  # messages on their way at once, end to end
    backlog: int = 100_000
    one_user: int = 10_000


@dataclass
class Result:
    """What a case came to."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)


def say(text: str) -> None:
    print(f"  {text}", flush=True)


# ---------------------------------------------------------------- pieces


def flood(world: World, scale: Scale, make: Callable[[], Iterator[Request]], port: int, what: str) -> list[float]:
    """Requests a second, as many as are answered; a warm-up, then ``scale.runs`` times ``scale.seconds``."""
    rates = []
    for run in range(scale.runs + 1):
        seconds = scale.seconds if run else min(2.0, scale.seconds)
        stream = Stream(what, port, make(), connections=CONNECTIONS, seconds=seconds)
        took = world.run(stream, say=f"{what}, {'run ' + str(run) if run else 'warm-up'}")
        require_success(stream)
        if run:
            rates.append(len(stream.answers) / took)
    return rates


def require_success(*streams: Stream) -> None:
    """Every request was answered well, maybe after some that were put off (503)."""
    for stream in streams:
        bad = {status: count for status, count in stream.statuses.items() if not 200 <= status < 300}
        if bad:
            say(f"{stream.name}: refused and sent again: {bad}")
        if not stream.answers:
            raise StreamFailed(f"{stream.name}: nothing was answered")


@dataclass
class Sustained:
    """Replies a second at the platform, and what a message cost meanwhile."""

    rate: float
    cost: Cost
    samples: list[float]  # replies in each second


def sustained(world: World, stream: Stream, system: System, seconds: float, warm: float, all_done: Done) -> Sustained:
    """Let ``stream`` keep its window full for a warm-up and ``seconds``; then wait until ``all_done``."""
    marks: list[tuple[float, int, Snapshot]] = []
    samples: list[tuple[float, int]] = []

    def mark() -> None:
        marks.append((time.monotonic(), world.replies, Snapshot(system)))
        stream.begin_measuring()

    def sample() -> None:
        samples.append((time.monotonic(), world.replies))

    stream.seconds = warm + seconds
    world.after(warm, mark)
    world.after(warm + seconds - 0.01, mark)
    for second in range(int(stream.seconds)):
        world.after(second, sample)
    world.run(stream, until=all_done, say=stream.name)
    (began, replies, before), (ended, more, after) = marks
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(samples)]
    return Sustained((more - replies) / (ended - began), Cost(before, after, more - replies), rates)


# ---------------------------------------------------------------- the limit


def limit(world: World, scale: Scale) -> Result:
    """(a) A view that reads the body and answers, served as ours is."""
    result = Result("limit")
    with System("limit") as system:
        system.start("web", procfile()["web"].replace("botproject.wsgi:application", "bench.limit:application"))
        path, body = "/nothing/", telegram(1, 1, "1:1")
        request = ("", post(path, body))
        before = Snapshot(system)
        rates = flood(world, scale, lambda: itertools.repeat(request), system.port, "do-nothing view")
        result.figures["per_second"] = statistics.median(rates)
        result.figures["generator_share"] = share_of_a_core(before, Snapshot(system))
    return result


def share_of_a_core(before: Snapshot, after: Snapshot) -> float:
    """How busy the load generator was: near 1 it would be what is measured."""
    return (after.cpu["world"] - before.cpu["world"]) / (after.at - before.at)


# ---------------------------------------------------------------- ours


def store(world: World, scale: Scale) -> Result:
    """(d) Webhooks stored and answered; no worker runs."""
    result = Result("store")
    with Ours() as ours:
        channel = ours.add_channel(world.api)
        before = Snapshot(ours)
        make = lambda: iter(ours.people(channel, scale.users))  # noqa: E731
        rates = flood(world, scale, make, ours.port, "store only")
        after = Snapshot(ours)
        stored = ours.value("SELECT count(*) FROM message")
        result.figures["per_second"] = statistics.median(rates)
        result.figures["generator_share"] = share_of_a_core(before, after)
        result.costs["store"] = Cost(before, after, stored).as_dict()
        if stored != len(world.expected):
            result.faults.append(f"{len(world.expected)} webhooks were answered, {stored} messages stored")
        world.expected.clear()
    return result


def e2e(world: World, scale: Scale) -> Result:
    """(d) Webhook to reply accepted by the platform and recorded."""
    result = Result("e2e")
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        requests = iter(ours.people(channel, scale.users))
        stream = Stream("end to end", ours.port, requests, connections=CONNECTIONS, window=scale.window)
        done = lambda: not world.expected and not ours.pending()  # noqa: E731
        run = sustained(world, stream, ours, scale.seconds * scale.runs, scale.seconds / 2, done)
        result.figures["per_second"] = run.rate
        result.figures["window_p50_ms"] = quantile(stream.measured_replies, 0.5) * 1000
        result.costs["e2e"] = run.cost.as_dict()
        result.samples["replies per second"] = run.samples
        result.faults = [*world.faults(), *ours.faults()]
    return result


CASES: dict[str, Callable[[World, Scale], Result]] = {case.__name__: case for case in (limit, store, e2e)}
