"""The cases about much: a backlog, a large database, memory, copies."""

from __future__ import annotations

import itertools
import time

from bench import growth as grown
from bench.latency import wait
from bench.measures import memory
from bench.runs import CONNECTIONS, Result, Scale, Sustained, all_done, ours_sustained, sustained
from bench.stack import Ours
from bench.world import Stream, World


def backlog(world: World, scale: Scale) -> Result:
    """100,000 messages stored while no worker runs, then drained; beside it the sustained rate."""
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
    """What a message costs in a small database and in a large one: ten messages of each of its conversations."""
    result = Result(name="growth")
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        small = sustained_among(world, scale, ours, Stream("a small database", ours.port, iter(
            ours.people(channel, scale.users)), connections=CONNECTIONS, window=scale.window))  # fmt: skip
        result.faults = [*world.faults(), *ours.faults()]
    with Ours("growth", keep=True) as ours:
        people = grown.grow(ours, world.api, scale)
        ours.start_workers()
        stream = Stream("a large database", ours.port, iter(people), connections=CONNECTIONS, window=scale.window)
        large = sustained_among(world, scale, ours, stream)
        result.figures["conversations"] = ours.value("SELECT count(*) FROM conversation")
        result.figures["messages"] = ours.value("SELECT reltuples FROM pg_class WHERE relname = 'message'")
        result.figures["gigabytes"] = ours.value("SELECT pg_database_size(current_database())") / 1e9
        result.faults += [*world.faults(), *ours.faults()]
    for name, run in (("small", small), ("large", large)):
        result.figures[f"{name}_per_second"] = run.rate
        result.figures[f"{name}_cpu_us"] = sum(run.cost.cpu_us.values())
        result.costs[name] = run.cost.as_dict()
    return result


def sustained_among(world: World, scale: Scale, ours: Ours, stream: Stream) -> Sustained:
    return sustained(world, stream, ours, seconds=2 * scale.seconds, warm=2 * scale.warm, until=all_done(world, ours))


def memory_used(world: World, scale: Scale) -> Result:
    """PSS of all processes and servers, idle and under full load."""
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
    """Five copies of each message, and one."""
    result = Result(name="duplicates")
    with Ours() as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        for copies in (1, 5):
            run = ours_sustained(world, scale, ours, channel, f"{copies} of each", copies=copies)
            result.figures[f"{copies}_of_each_per_second"] = run.rate
            result.costs[f"{copies} of each"] = run.cost.as_dict()
        result.faults = [*world.faults(), *ours.faults()]
    return result
