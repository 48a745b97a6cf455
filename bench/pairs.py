"""This commit beside an older one, end to end, by turns: ``make bench-pairs OLD=<commit> PAIRS=6``."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

from bench.compared import end_to_end
from bench.runs import Result, Scale, undisturbed
from bench.stack import FOLDER
from bench.world import World
from botproject.local.__main__ import CHECKOUT

OLD, NEW = "old", "new"
PER_MESSAGE = {"cpu_us": "cpu_us_total", "statements": "statements_per_message", "commits": "commits_per_message",
               "wal_bytes": "wal_bytes_per_message", "others_cores": "cores_used_by_others"}  # fmt: skip

Pair = dict[str, Result]


def pairs(world: World, scale: Scale) -> Result:
    """End to end: an older commit (OLD) and this one, in alternating pairs, on servers of the same versions."""
    result = Result(name="pairs")
    commit = git("rev-parse", "--short", os.environ["OLD"])
    checkouts = {OLD: clone(commit), NEW: CHECKOUT}
    done: list[Pair] = []
    for number in range(int(os.environ.get("PAIRS") or 6)):
        order = (OLD, NEW) if number % 2 else (NEW, OLD)
        done.append(undisturbed(scale, result, f"pair {number + 1}", functools.partial(pair, scale, checkouts, order)))
        result.tables[f"pair {number + 1}"] = row(done[-1])
        print(f"  pair {number + 1}: " + ", ".join(f"{name} {value:.4g}" for name, value in row(done[-1]).items()))
    result.tables["median"] = {name: statistics.median(each[name] for each in result.tables.values())
                               for name in row(done[0])}  # fmt: skip
    result.figures["times"] = result.tables["median"]["times"]
    for side, words in ((OLD, f"old, {commit}"), (NEW, "this commit")):
        result.costs[words] = done[-1][side].costs["end to end"]
        result.faults += [f"{words}: {fault}" for each in done for fault in each[side].faults]
    return result


def clone(commit: str) -> Path:
    """A checkout of this commit beside the benchmark's folder. It runs with this one's packages."""
    folder = FOLDER.parent / f"bench-{commit}"
    if not folder.exists():
        git("clone", "--quiet", "--no-checkout", str(CHECKOUT), str(folder))
        git("checkout", "--quiet", "--detach", commit, folder=folder)
    return folder


def git(*words: str, folder: Path = CHECKOUT) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def pair(scale: Scale, checkouts: dict[str, Path], order: tuple[str, str]) -> tuple[Pair, float]:
    done = {side: end_to_end(World(), scale, f"pairs-{side}", checkouts[side]) for side in order}
    return done, max(cost_of(each)["cores_used_by_others"] for each in done.values())


def cost_of(result: Result) -> dict[str, Any]:
    return dict(result.costs["end to end"])


def row(done: Pair) -> dict[str, float]:
    """The figures of a pair, old beside new."""
    rates = {side: done[side].figures["per_second"] for side in (OLD, NEW)}
    found = {f"{side}_per_second": rate for side, rate in rates.items()} | {"times": rates[NEW] / rates[OLD]}
    found |= {f"{side}_mb": done[side].figures["loaded_mb"] for side in (OLD, NEW)}
    for name, long_name in PER_MESSAGE.items():
        found |= {f"{side}_{name}": cost_of(done[side])[long_name] for side in (OLD, NEW)}
    tables = sorted({table for each in done.values() for table in cost_of(each)["hot_share"]})
    return found | {f"{side}_hot_{table}": cost_of(done[side])["hot_share"].get(table, 0.0)
                    for table in tables for side in (OLD, NEW)}  # fmt: skip
