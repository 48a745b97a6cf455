"""The cases about latency alone: rate by rate at even intervals, beside a floor, beside procrastinate."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench.compared import UNDONE_JOBS, start_queue
from bench.measures import PARTS, Cost, Snapshot, memory
from bench.runs import (
    CONNECTIONS,
    Done,
    Result,
    Scale,
    all_done,
    by_turns,
    half_rate,
    milliseconds,
    note_answers,
    paced,
    times,
    undisturbed,
)
from bench.stack import Ours, System
from bench.world import People, Request, Stream, StreamFailed, World
from botproject.local.__main__ import CHECKOUT

RATES = (10.0, 50.0, 100.0, 200.0, 400.0, 800.0)  # messages a second
SLOWEST, BESIDE = 10.0, 100.0
FEWEST = 50  # messages of a run, times Scale.seconds
FLOORS = ((10, 0.5), (100, 0.5), (100, 0.99), (400, 0.5))  # which figures are compared with the floor: rate, share
FLOOR_RATES = (10, 100)  # the floor cannot be measured faster


@dataclass(frozen=True, kw_only=True)
class Side:
    """A pipeline that is measured, with people who have written before."""

    name: str
    system: System
    requests: Iterator[Request]
    done: Done


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run at one rate. ``began``: monotonic."""

    began: float
    stream: Stream
    cost: Cost

    def platform(self, share: float) -> float:
        """Milliseconds from webhook to platform."""
        return milliseconds(self.stream.measured_replies, share)

    def row(self) -> dict[str, float]:
        cost, answers = self.cost, self.stream.measured
        return {
            "webhook_p50_ms": milliseconds(answers, 0.5),
            "webhook_p99_ms": milliseconds(answers, 0.99),
            "platform_p50_ms": self.platform(0.5),
            "platform_p99_ms": self.platform(0.99),
            "left_late_p99_ms": milliseconds(self.stream.measured_late, 0.99),
            "processor_share": cost.processor_share,
            "cpu_us": sum(cost.cpu_us.values()),
            **{f"{part}_us": cost.cpu_us[part] for part in PARTS if part in cost.cpu_us},
            "others_cores": cost.others,
        }


def latency(world: World, scale: Scale) -> Result:
    """At even intervals: webhook's answer and webhook to platform, rate by rate; the floor; by turns procrastinate."""
    result = Result(name="latency")
    with Ours() as ours:
        ours.start_workers()
        side = ours_side(world, scale, ours)
        everybody_writes(world, scale, side)
        before = {rate: the_floor(world, ours, rate) for rate in FLOOR_RATES}
        result.tables = {f"{rate:g}/s": at_rate(world, scale, result, side, rate).row() for rate in RATES}
        for rate, floor in before.items():
            after = the_floor(world, ours, rate)
            result.figures |= {f"floor_{name}_at_{rate}_ms": (floor[name] + after[name]) / 2 for name in floor}
        for rate, share in FLOORS:
            measured = result.tables[f"{rate}/s"][f"platform_p{share * 100:.0f}_ms"]
            floor_ms = result.figures[f"floor_all_at_{min(rate, FLOOR_RATES[-1])}_ms"]
            result.figures[f"p{share * 100:.0f}_floors_at_{rate}"] = measured / floor_ms
        beside_queue(world, scale, result, side)
        result.faults = [*world.faults(), *ours.faults()]
    return result


def ours_side(world: World, scale: Scale, ours: Ours) -> Side:
    people = iter(ours.people(ours.add_channel(world.api), scale.regulars))
    return Side(name="ours", system=ours, requests=people, done=all_done(world, ours))


def everybody_writes(world: World, scale: Scale, side: Side) -> None:
    """Let each person write once, before anything is measured."""
    once = itertools.islice(side.requests, scale.regulars)
    window = max(10, scale.window // 4)
    stream = Stream(f"{side.name}, everybody once", side.system.port, once, connections=CONNECTIONS, window=window)
    world.run(stream, until=side.done, say=stream.name)


def at_rate(world: World, scale: Scale, result: Result, side: Side, rate: float) -> Run:
    """One run at one rate, without other load on this machine."""
    what = f"{side.name} at {rate:,.0f}/s"

    def measure() -> tuple[Run, float]:
        stream = Stream(what, side.system.port, side.requests, connections=CONNECTIONS, rate=rate)
        before = Snapshot(side.system)
        paced(world, scale, stream, until=side.done, seconds=max(2 * scale.seconds, FEWEST * scale.seconds / rate))
        run = Run(began=before.at, stream=stream, cost=Cost(before, Snapshot(side.system), stream.sent))
        return run, run.cost.others

    return undisturbed(scale, result, what, measure)


def the_floor(world: World, system: System, rate: int) -> dict[str, float]:
    """What no pipeline can leave out, in ms, on these servers; see ``bench.floor``."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.floor", world.api, str(rate)],
        cwd=CHECKOUT,
        env=system.env,
        stdout=subprocess.PIPE,
    ) as process:
        world.run(until=lambda: process.poll() is not None, say="the floor", even=True)
        assert process.stdout is not None
        if process.returncode:
            raise StreamFailed("the floor was not measured")
        return dict(json.loads(process.stdout.read()))


def beside_queue(world: World, scale: Scale, result: Result, side: Side) -> None:
    """By turns at ``BESIDE`` messages a second: procrastinate with a lock per user, and ours."""
    with System("queue", env={"API_BASE": world.api}) as system:
        start_queue(system)
        people = iter(People(path="/webhook/", secret="", first=1_000_000, count=scale.regulars))
        queue = Side(name="procrastinate", system=system, requests=people,
                     done=lambda: not world.expected and not system.value(UNDONE_JOBS))  # fmt: skip
        everybody_writes(world, scale, queue)
        theirs, its = by_turns(
            scale.runs,
            lambda: at_rate(world, scale, result, queue, BESIDE),
            lambda: at_rate(world, scale, result, side, BESIDE),
        )
        for share in (0.5, 0.99):
            name = f"p{share * 100:.0f}"
            pairs = [[run.platform(share) for run in runs] for runs in (theirs, its)]
            result.samples |= {f"{name} of procrastinate, ms": pairs[0], f"{name} of ours, ms": pairs[1]}
            result.figures[f"procrastinate_{name}_ms"] = statistics.median(pairs[0])
            result.figures[f"beside_it_{name}_ms"] = statistics.median(pairs[1])
            result.figures[f"{name}_times_procrastinate"] = times(*pairs)
        result.costs |= {"procrastinate at 100/s": theirs[-1].cost.as_dict(), "ours at 100/s": its[-1].cost.as_dict()}
        result.figures["procrastinate_mb"] = sum(memory(system).values())
        result.figures["ours_mb"] = sum(memory(side.system).values())


def webhook(world: World, scale: Scale) -> Result:
    """How long a webhook waits for its answer at half of the maximum rate and at 10/s, while no worker runs."""
    result = Result(name="webhook")
    with Ours() as ours:
        half = half_rate(world, scale, ours)().rate
        people = iter(ours.people(ours.add_channel(world.api), scale.users))
        side = Side(name="webhooks", system=ours, requests=people, done=lambda: True)
        for prefix, rate in (("at_10_", SLOWEST), ("", half)):
            run = at_rate(world, scale, result, side, rate)
            note_answers(result, run.stream.measured, prefix)
            result.figures[f"{prefix}left_late_p99_ms"] = milliseconds(run.stream.measured_late, 0.99)
        result.figures["rate"] = half
    return result
