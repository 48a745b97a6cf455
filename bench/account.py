"""The case that says where a message's time goes, step by step; see ``probes`` for how it knows."""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.latency import at_rate, everybody_writes, ours_side
from bench.probes import WAY, WRITE_SECONDS, Note
from bench.runs import Result, Scale
from bench.stack import Ours
from bench.world import World, quantile

RATES = (10.0, 100.0, 200.0, 400.0)


def account(world: World, scale: Scale) -> Result:
    """A message's way step by step, in ms, rate by rate. Probes from outside make it a little slower."""
    result = Result(name="account")
    with Ours(env={"BENCH_PROBES": "1"}) as ours:
        ours.start_workers()
        side = ours_side(world, scale, ours)
        everybody_writes(world, scale, side)
        for rate in RATES:
            began = at_rate(world, scale, result, side, rate).began
            time.sleep(2 * WRITE_SECONDS)  # all notes are written by then
            ways = [way for way in ways_of(notes(ours.folder)) if way["accepted"] >= began]
            result.figures[f"messages_at_{rate:g}"] = len(ways)
            for name, share in (("p50", 0.5), ("p90", 0.9)):
                result.tables[f"{rate:g}/s {name}"] = steps(ways, share)
        result.faults = [*world.faults(), *ours.faults()]
    return result


def notes(folder: Path) -> Iterator[Note]:
    for path in folder.glob("notes-*.jsonl"):
        for line in path.read_text().splitlines():
            step, conversation, at = json.loads(line)
            yield step, conversation, at


def ways_of(noted: Iterable[Note]) -> list[dict[str, float]]:
    """When each message passed each step; only messages of which every step is known.

    A message begins where its conversation's previous one was accepted long ago. Its steps are the first ones
    in the order of the way: a conversation may be looked at several times.
    """
    by_conversation: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for step, conversation, at in noted:
        by_conversation[conversation].append((at, step))
    found: list[dict[str, float]] = []
    for passed in by_conversation.values():
        passed.sort()
        begins = [at for at, step in passed if step == WAY[0]]
        for began, ended in zip(begins, [*begins[1:], float("inf")], strict=True):
            way = way_of([(at, step) for at, step in passed if began <= at < ended])
            if len(way) == len(WAY):
                found.append(way)
    return found


def way_of(passed: Sequence[tuple[float, str]]) -> dict[str, float]:
    """The first time of each step that is not before the step before it."""
    way: dict[str, float] = {}
    now = float("-inf")
    for step in WAY:
        at = next((at for at, name in passed if name == step and at >= now), None)
        if at is None:
            break
        way[step] = now = at
    return way


def steps(ways: Sequence[dict[str, float]], share: float) -> dict[str, float]:
    """Milliseconds of each step since the one before it, and of the whole way."""
    took = {f"-> {later}": [(way[later] - way[sooner]) * 1000 for way in ways]
            for sooner, later in itertools.pairwise(WAY)}  # fmt: skip
    took["all"] = [(way[WAY[-1]] - way[WAY[0]]) * 1000 for way in ways]
    return {name: quantile(values, share) for name, values in took.items()}
