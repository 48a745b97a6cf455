"""The results of a run: JSON in ``.data/bench``, a printed table, ``docs/benchmarks.md`` with its picture."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.cases import ASKED_FOR, CASES, TARGETS, Target
from bench.picture import curves, picture
from bench.runs import Result
from bench.stack import FOLDER
from botproject.local.__main__ import CHECKOUT
from botproject.local.binaries import find_postgres, find_valkey
from botproject.local.places import make_folder

LATEST = FOLDER / "latest.json"
PAGE = CHECKOUT / "docs" / "benchmarks.md"
IMAGES = CHECKOUT / "docs" / "images"
PACKAGES = ("django", "celery", "psycopg", "redis", "granian", "procrastinate")

Run = dict[str, Any]


# ---------------------------------------------------------------- a run


def begin() -> Run:
    """Begin a run: its date, commit, machine and versions."""
    return {
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else ""),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "machine": machine(),
        "versions": versions(),
        "cases": {},
    }


def add(run: Run, result: Result, seconds: float, *, keep: bool) -> None:
    """Save a result at once, so that a run that is cut off keeps its results."""
    run["cases"][result.name] = {**asdict(result), "seconds": round(seconds, 1)}
    if not keep:
        return
    make_folder(FOLDER)
    text = json.dumps(run, indent=1)
    LATEST.write_text(text)
    (FOLDER / f"{run['date'].replace(' ', '-').replace(':', '')}-{run['commit']}.json").write_text(text)


def latest() -> Run:
    return dict(json.loads(LATEST.read_text())) if LATEST.exists() else begin()


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True).stdout.strip()


def machine() -> str:
    cores = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kind = model[1] if model else platform.machine()
    return f"{cores} cores ({kind}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def versions() -> dict[str, str]:
    """Versions of PostgreSQL, Valkey and Python, as they report them, and of packages."""
    said = {"python": platform.python_version()}
    for name, binary in (("postgres", find_postgres()), ("valkey", find_valkey())):
        words = subprocess.run([binary.path, "--version"], capture_output=True, text=True).stdout
        found = re.search(r"\d+\.\d+(\.\d+)?", words)
        said[name] = found[0] if found else str(binary.version)
    return said | {name: version(name) for name in PACKAGES}


# ---------------------------------------------------------------- the table


def judged(run: Run) -> Iterator[tuple[Target, float]]:
    """Each target whose cases ran, with its value."""
    figures: Mapping[str, Mapping[str, float]] = {name: case["figures"] for name, case in run["cases"].items()}
    for target in TARGETS:
        try:
            yield target, target.value(figures)
        except (KeyError, ZeroDivisionError):
            continue


def rows(run: Run) -> list[tuple[str, str, str, str]]:
    found = []
    for target, value in judged(run):
        wanted = f"{'>=' if target.at_least else '<='} {shown(target.bound)}{target.unit}"
        if target.aim is not None:
            wanted += f" (aim {shown(target.aim)})"
        found.append((target.words, f"{shown(value)}{target.unit}", wanted, "yes" if target.met(value) else "NO"))
    return found


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(run: Run) -> None:
    print_columns([("", "measured", "target", "met"), *rows(run)])
    for name, case in run["cases"].items():
        for note in case.get("notes", ()):
            print(f"{name}: {note}")
        for fault in case["faults"]:
            print(f"{name}: WRONG: {fault}")
    print(f"\n{run['date']} UTC, commit {run['commit']}, {run['machine']}\n{LATEST}")


def print_columns(table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def turned(tables: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """One column for each of what is compared, below its name; no row without any."""
    names = list(dict.fromkeys(name for figures in tables.values() for name in figures))
    lines = [[name, *(shown(its[name]) if name in its else "" for its in tables.values())] for name in names]
    return [["", *tables], *lines] if tables else []


def print_result(result: Result) -> None:
    """Figures and costs of one case."""
    print("  " + ", ".join(f"{name} {shown(value)}" for name, value in result.figures.items()))
    print_columns(turned(result.tables))
    for name, cost in result.costs.items():
        print_cost(name, cost)
    for fault in result.faults:
        print(f"  WRONG: {fault}")
    sys.stdout.flush()


def print_cost(name: str, cost: Mapping[str, Any]) -> None:
    parts = ", ".join(f"{part} {us:.0f}" for part, us in cost["cpu_us_per_message"].items() if us >= 0.5)
    batches = {name: each["rows_per_call"] for name, each in cost["statements"].items() if name in BATCHES}
    print(f"  {name}: {cost['messages']:,} messages, CPU us per message: {cost['cpu_us_total']:.0f} ({parts});"
          f" cores used {cost['cores_used']}, by others {cost['cores_used_by_others']}")  # fmt: skip
    print(f"    per message: {cost['statements_per_message']} statements, {cost['commits_per_message']} commits,"
          f" rows {cost['rows_per_message']}, WAL {cost['wal_bytes_per_message']} bytes,"
          f" full pages {cost['wal_full_pages_per_message']}")  # fmt: skip
    print(f"    HOT share {cost['hot_share']}; messages per transaction {batches};"
          f" ids per task {cost.get('ids_per_task', {})}")  # fmt: skip
    for statement, each in list(cost["statements"].items())[:8]:
        print(
            f"    {each['us_per_message']:8.1f} us {each['calls']:7} calls {each['rows_per_call']:8} rows  {statement}"
        )


BATCHES = ("store_messages", "commit_turns", "commit_sends")


# ---------------------------------------------------------------- the page


def write_page(run: Run) -> None:
    """Write ``docs/benchmarks.md`` and its pictures from a run."""
    (IMAGES / "benchmarks.svg").write_text(picture(run, list(judged(run))))
    if "latency" in run["cases"]:
        (IMAGES / "latency.svg").write_text(curves(run["cases"]["latency"]))
    PAGE.write_text("\n".join(page(run)) + "\n")


def page(run: Run) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "`make bench-docs` writes this page: do not edit. [bench/README.md](../bench/README.md) explains the cases."
    yield "Compare the ratios: both sides were measured in one run, with load generator and platform on the same cores."
    yield ""
    yield from in_short(run)
    yield from missed(run)
    yield f"{run['date']} UTC, commit {run['commit']}, {run['machine']};"
    yield ", ".join(f"{name} {number}" for name, number in run["versions"].items()) + "."
    yield ""
    yield "![The latest run](images/benchmarks.svg)"
    yield ""
    yield "| | measured | target | met |"
    yield "|---|---|---|---|"
    for row in rows(run):
        yield "| " + " | ".join(row) + " |"
    yield ""
    yield from faults(run)
    for name, case in (CASES | ASKED_FOR).items():
        if name in run["cases"]:
            yield from section(name, case.__doc__ or "", run["cases"][name])


READING = """\
**p50** is the median, **p99** what 99 of 100 stay under, **x** how many times. A target is what is asked for. An *aim*
is a higher goal, by which nothing is judged. In the sections below, names that end in `_ms` are milliseconds, in `_us`
microseconds of processor time a message (1,000 are one millisecond), in `_mb` megabytes; `at_10` is at 10 messages a
second. `p50_ms` of `e2e` is the time in the queue of a flood, with 1,000 messages on their way: `latency` says how fast
a message is."""


def in_short(run: Run) -> Iterator[str]:
    """Yield in plain words how fast a message is and how many there may be, and how to read the tables."""
    cases = run["cases"]
    if latency := cases.get("latency"):
        took = ", ".join(
            f"{shown(its['platform_p50_ms'])} ms at {rate} (p99 {shown(its['platform_p99_ms'])} ms)"
            for rate, its in latency["tables"].items()
            if rate in ("10/s", "100/s", "400/s")
        )
        floors = [shown(latency["figures"][f"floor_all_at_{rate}_ms"]) for rate in (10, 100)]
        yield f"**In short.** From the webhook to the platform the median message took {took}."
        yield "A **floor** is the time of what no pipeline can leave out, measured alone on the same machine: two"
        yield "commits, a read, two trips to Redis and a call to the platform."
        yield f"It is {floors[0]} ms at 10/s, {floors[1]} ms at 100/s."
    if "e2e" in cases and "limit" in cases:
        most, view = (shown(cases[name]["figures"]["per_second"]) for name in ("e2e", "limit"))
        yield f"At most {most} messages a second went all the way; a Django view that does nothing answered {view}."
    yield ""
    yield READING
    yield ""


def missed(run: Run) -> Iterator[str]:
    """Yield how many targets are met, and those that are not with figure and reason; one reason stands once."""
    verdicts = list(judged(run))
    reasons: dict[str, list[str]] = {}
    for target, value in verdicts:
        if not target.met(value):
            said = f"{target.words} ({shown(value)}{target.unit} instead of {shown(target.bound)})"
            reasons.setdefault(target.why or "The reason is not known.", []).append(said)
    not_met = sum(map(len, reasons.values()))
    yield f"**{len(verdicts) - not_met} of {len(verdicts)} targets are met{'; not met:**' if reasons else '.**'}"
    yield ""
    for why, all_said in reasons.items():
        yield f"* {'; '.join(all_said)}. {why}"
    yield ""


def faults(run: Run) -> Iterator[str]:
    wrong = [f"{name}: {fault}" for name, case in run["cases"].items() for fault in case["faults"]]
    yield "Every reply arrived once and in order, in every case below." if not wrong else "Wrong: " + "; ".join(wrong)
    yield ""


def section(name: str, words: str, case: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield words.strip()
    yield ""
    yield ", ".join(f"{figure} {shown(value)}" for figure, value in case["figures"].items())
    yield ""
    if name == "latency":
        yield "![Latency by rate](images/latency.svg)"
        yield ""
    for note in case.get("notes", ()):
        yield f"* {note}"
    yield ""
    for place, line in enumerate(turned(case.get("tables", {}))):
        yield f"| {' | '.join(line)} |"
        if not place:
            yield "|---" * len(line) + "|"
    yield ""
    for what, cost in case["costs"].items():
        yield from cost_table(what, cost)


def cost_table(what: str, cost: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {what}, per message | |"
    yield "|---|---|"
    cpu = ", ".join(f"{part} {us:.0f}" for part, us in cost["cpu_us_per_message"].items() if us >= 0.5)
    yield f"| CPU, us | {cost['cpu_us_total']:.0f}: {cpu} |"
    yield f"| cores used, by others | {cost['cores_used']}, {cost['cores_used_by_others']} |"
    yield f"| statements, commits | {cost['statements_per_message']}, {cost['commits_per_message']} |"
    yield f"| rows | {', '.join(f'{count} {verb}' for verb, count in cost['rows_per_message'].items())} |"
    yield f"| WAL, bytes | {cost['wal_bytes_per_message']:,}, full pages {cost['wal_full_pages_per_message']} |"
    yield f"| HOT share of updates | {', '.join(f'{table} {share}' for table, share in cost['hot_share'].items())} |"
    batches = [f"{name} {each['rows_per_call']}" for name, each in cost["statements"].items() if name in BATCHES]
    if batches:
        yield f"| messages per transaction | {', '.join(batches)} |"
    if cost.get("ids_per_task"):
        yield f"| ids per Celery task | {', '.join(f'{task} {ids}' for task, ids in cost['ids_per_task'].items())} |"
    yield ""
