"""The cases about volume: a backlog, a large database, memory, duplicates."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

from bench import growth as grown
from bench.measures import memory
from bench.runs import CONNECTIONS, Result, Scale, Sustained, all_done, by_turns, ours_sustained, sustained, times, wait
from bench.stack import Ours
from bench.world import Request, Stream, World


def backlog(world: World, scale: Scale) -> Result:
    """100,000 messages are stored while no worker runs, then drained; compared with the sustained rate."""
    result = Result(name="backlog")
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        result.figures["sustained_per_second"] = ours_sustained(world, scale, ours, channel, "sustained").rate
        ours.stop_workers()
        requests = itertools.islice(ours.people(channel, scale.users), scale.backlog)
        stored = Stream("a backlog", ours.port, requests, connections=CONNECTIONS)
        result.figures["stored_per_second"] = scale.backlog / world.run(stored, say=stored.name)
        ours.start_workers()
        began = time.monotonic()
        world.run(until=all_done(world, ours), seconds=900, say="draining it")
        result.figures["drained_per_second"] = scale.backlog / (time.monotonic() - began)
        result.faults = [*world.faults(), *ours.faults()]
    return result


def growth(world: World, scale: Scale) -> Result:
    """What a message costs in a small and in a large database, by turns. The large one has ten in each conversation."""
    result = Result(name="growth")
    with Ours() as small, Ours("growth", keep=True) as large:
        few = iter(small.people(small.add_channel(world.api), scale.users))
        many = iter(grown.grow(large, world.api, scale))
        for ours, people in ((small, few), (large, many)):
            ours.start_workers()
            once = itertools.islice(people, scale.users)  # the warm-up: each person has written
            stream = Stream("everybody", ours.port, once, connections=CONNECTIONS, window=scale.window)
            world.run(stream, until=all_done(world, ours), say="everybody writes once")
        runs = by_turns(
            scale.runs,
            lambda: sustained_among(world, scale, small, few),
            lambda: sustained_among(world, scale, large, many),
        )
        result.figures["conversations"] = large.value("SELECT count(*) FROM conversation")
        result.figures["messages"] = large.value("SELECT reltuples FROM pg_class WHERE relname = 'message'")
        result.figures["gigabytes"] = large.value("SELECT pg_database_size(current_database())") / 1e9
        result.faults = [*world.faults(), *small.faults(), *large.faults()]
    costs = [[sum(run.cost.cpu_us.values()) for run in its] for its in runs]
    for name, its, us in zip(("small", "large"), runs, costs, strict=True):
        result.figures[f"{name}_per_second"] = statistics.median(run.rate for run in its)
        result.figures[f"{name}_cpu_us"] = statistics.median(us)
        result.costs[name] = its[-1].cost.as_dict()
    result.figures["times_the_cpu"] = times(*costs)
    result.figures["times_as_long"] = 1 / times(*[[run.rate for run in its] for its in runs])
    return result


def sustained_among(world: World, scale: Scale, ours: Ours, people: Iterator[Request]) -> Sustained:
    stream = Stream(f"in {ours.folder.name}", ours.port, people, connections=CONNECTIONS, window=scale.window)
    return sustained(world, stream, ours, seconds=scale.seconds, warm=scale.warm, until=all_done(world, ours))


def memory_used(world: World, scale: Scale) -> Result:
    """Memory (PSS) of all processes and servers, idle and under full load."""
    result = Result(name="memory")
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        wait(world, 2 * scale.warm)
        idle = memory(ours)
        busiest: dict[str, float] = {}

        def look() -> None:
            now = memory(ours)
            if sum(now.values()) > sum(busiest.values()):
                busiest.update(now)

        for second in range(1, int(scale.warm + scale.seconds) + 1):
            world.after(second, look)
        ours_sustained(world, scale, ours, channel, "full load")
        look()
        result.figures["idle_mb"], result.figures["loaded_mb"] = sum(idle.values()), sum(busiest.values())
        result.figures |= {f"idle_{part}_mb": size for part, size in idle.items()}
        result.figures |= {f"loaded_{part}_mb": size for part, size in busiest.items()}
        result.faults = [*world.faults(), *ours.faults()]
    return result


def duplicates(world: World, scale: Scale) -> Result:
    """Each message is sent five times or once, by turns."""
    result = Result(name="duplicates")
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        one, five = by_turns(
            scale.runs,
            lambda: ours_sustained(world, scale, ours, channel, "1 of each", copies=1),
            lambda: ours_sustained(world, scale, ours, channel, "5 of each", copies=5),
        )
        for copies, its in ((1, one), (5, five)):
            result.figures[f"{copies}_of_each_per_second"] = statistics.median(run.rate for run in its)
            result.costs[f"{copies} of each"] = its[-1].cost.as_dict()
        result.figures["times_as_long"] = 1 / times([run.rate for run in one], [run.rate for run in five])
        result.faults = [*world.faults(), *ours.faults()]
    return result
