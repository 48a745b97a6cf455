"""The cases that compare pipelines: the limit, a plain pipeline, a job queue, ours."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

from bench.measures import Cost, Snapshot, memory
from bench.runs import (
    CONNECTIONS,
    Result,
    Scale,
    all_done,
    answered,
    by_turns,
    flood,
    milliseconds,
    share_of_a_core,
    sustained,
    times,
)
from bench.stack import Ours, System
from bench.world import People, Request, Stream, World, post, telegram
from botproject.local.__main__ import CHECKOUT, procfile

PLAIN_WORKERS = 4  # processes; each waits for half of its time
PLAIN_WORKER = f"python -m celery --quiet -A bench.plain.tasks worker --concurrency {PLAIN_WORKERS}"
QUEUE_WORKER = "python -m procrastinate --app=bench.queue.jobs.app worker --concurrency=16"
UNDONE_JOBS = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"


def limit(world: World, scale: Scale) -> Result:
    """(a) A view that reads the body and answers, served by the same command as ours."""
    result = Result(name="limit")
    with System("limit") as system:
        start_limit(system)
        before = Snapshot(system)
        rates = flood(world, scale, nothing_asked, system.port, "do-nothing view")
        result.figures["per_second"] = statistics.median(rates)
        result.figures["generator_share"] = share_of_a_core(before, Snapshot(system))
    return result


def start_limit(system: System) -> None:
    system.start("web", web_command("bench.limit"))
    system.wait_for_web()


def nothing_asked() -> Iterator[Request]:
    return itertools.repeat(("", post("/nothing/", telegram(1, 1, "1:1"))))


def web_command(module: str) -> str:
    return procfile()["web"].replace("botproject.wsgi", module)


# ---------------------------------------------------------------- the others


def plain(world: World, scale: Scale) -> Result:
    """(b) The pipeline that a good team would write first."""
    undone = """SELECT count(*) FROM plain_message m LEFT JOIN plain_reply r ON r.message_id = m.id
                 WHERE r.sent_at IS NULL"""
    with plain_system("plain", world.api) as system:
        start_plain_web(system)
        system.start("worker", PLAIN_WORKER)
        return other("plain", world, scale, system, undone)


def plain_system(name: str, api: str) -> System:
    return System(name, env={"API_BASE": api, "DJANGO_SETTINGS_MODULE": "bench.plain.settings"})


def start_plain_web(system: System) -> None:
    system.run("-m", "bench.plain.create_tables")
    system.start("web", web_command("bench.plain.web"))
    system.wait_for_web()


def queue(world: World, scale: Scale) -> Result:
    """(c) procrastinate: a job per message, with ``lock=`` per user."""
    with System("queue", env={"API_BASE": world.api}) as system:
        start_queue(system)
        return other("queue", world, scale, system, UNDONE_JOBS)


def start_queue(system: System) -> None:
    system.run("-m", "procrastinate", "--app=bench.queue.jobs.app", "schema", "--apply")
    system.start("web", web_command("bench.queue.web"))
    system.wait_for_web()
    system.start("worker", QUEUE_WORKER)


def other(name: str, world: World, scale: Scale, system: System, undone: str) -> Result:
    """Measure end to end, then storing alone, without workers. ``undone`` is a query that counts unfinished work."""
    result = Result(name=name)
    requests = iter(People(path="/webhook/", secret="", first=1_000_000, count=scale.users))
    window = max(10, scale.window // 4)
    stream = Stream(f"{name}, end to end", system.port, requests, connections=CONNECTIONS, window=window)
    run = sustained(world, stream, system, seconds=2 * scale.seconds, warm=scale.warm,
                    until=lambda: not world.expected and not system.value(undone))  # fmt: skip
    result.figures["per_second"] = run.rate
    result.costs["end to end"] = run.cost.as_dict()
    result.faults = world.faults()
    system.stop("worker")
    alone = Stream(f"{name}, store only", system.port, requests, connections=CONNECTIONS, seconds=scale.seconds)
    took = world.run(alone, say=alone.name)
    result.figures["store_per_second"] = len(alone.answers) / took
    world.expected.clear()
    return result


# ---------------------------------------------------------------- ours


def store(world: World, scale: Scale) -> Result:
    """(d) Ours, storing only: webhooks are answered while no worker runs, by turns with the do-nothing view."""
    result = Result(name="store")
    with System("limit") as nothing, Ours() as ours:
        start_limit(nothing)
        channel = ours.add_channel(world.api)
        costs: list[Cost] = []

        def do_nothing(seconds: float = scale.seconds) -> float:
            return answered(world, nothing_asked(), nothing.port, "do-nothing view", seconds)

        def stored(seconds: float = scale.seconds) -> float:
            before, known = Snapshot(ours), len(world.expected)
            rate = answered(world, iter(ours.people(channel, scale.users)), ours.port, "store only", seconds)
            after = Snapshot(ours)
            costs.append(Cost(before, after, len(world.expected) - known))
            result.figures["generator_share"] = share_of_a_core(before, after)
            return rate

        for warm_up in (do_nothing, stored):
            warm_up(min(2.0, scale.seconds))
        limits, rates = by_turns(scale.runs, do_nothing, stored)
        result.figures["per_second"] = statistics.median(rates)
        result.figures["do_nothing_per_second"] = statistics.median(limits)
        result.figures["share_of_do_nothing"] = times(limits, rates)
        result.costs["store"] = costs[-1].as_dict()
        result.samples = {"do-nothing view, a second": limits, "store only, a second": rates}
        messages = ours.value("SELECT count(*) FROM message")
        if messages != len(world.expected):
            result.faults.append(f"{len(world.expected)} webhooks were answered, {messages} messages stored")
    return result


def e2e(world: World, scale: Scale) -> Result:
    """(d) Ours, end to end: from the webhook to a reply that the platform accepted and that is recorded."""
    return end_to_end(world, scale)


def end_to_end(world: World, scale: Scale, name: str = "ours", checkout: Path = CHECKOUT) -> Result:
    """The same, with the code of ``checkout``."""
    result = Result(name="e2e")
    with Ours(name, checkout=checkout) as ours:
        ours.start_workers()
        channel = ours.add_channel(world.api)
        requests = iter(ours.people(channel, scale.users))
        stream = Stream("end to end", ours.port, requests, connections=CONNECTIONS, window=scale.window)
        warm, seconds = 2 * scale.warm, scale.runs * scale.seconds
        loaded: list[dict[str, float]] = []
        world.after(warm + seconds + 0.1, lambda: loaded.append(memory(ours)))  # after the last figure
        done = all_done(world, ours)
        run = sustained(world, stream, ours, seconds=seconds, warm=warm, until=lambda: bool(loaded) and done())
        result.figures["per_second"] = run.rate
        result.figures["p50_ms"] = milliseconds(stream.measured_replies, 0.5)
        result.figures["loaded_mb"] = sum(loaded[0].values())
        result.costs["end to end"] = {**run.cost.as_dict(), "ids_per_task": ours.ids_per_task()}
        result.samples["replies in each second"] = run.samples
        result.faults = [*world.faults(), *ours.faults()]
    return result
