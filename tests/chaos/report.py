"""Writes docs/reliability.md from what runs wrote down: no figure on that page is typed.

    python -m tests.chaos report                                        # the page, from docs/reliability/*.json
    python -m tests.chaos report .data/chaos/20261122-081500-all.json   # keep this run's figures, then the page

Kept are small summaries, so that the page can be made again on a fresh checkout. A run replaces the ones of its name
that came from another commit: the page shows the latest.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.mutants.planted import MUTANTS as PLANTED

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"

Json = dict[str, Any]

RUN, MUTANTS, POINTS = "run", "mutants", "points"
FIGURES = ("commit", "seed", "began", "seconds", "verdict", "messages", "taken", "requests", "sent again", "handled",
           "replies", "shown", "shown again", "met", "slack", "usual_p99_s", "most")  # fmt: skip
FAULT_FIGURES = ("name", "title", "bound_s", "backlog_s", "answered_s", "committed_s", "usual_s", "hit", "limit",
                 "notes", "problems", "missed")  # fmt: skip
TIMES = {
    "answered_s": "T1: until a webhook is answered 2xx",
    "committed_s": "T2: until a turn is committed",
    "backlog_s": "T3: until all that was taken before is handled and delivered",
    "usual_s": "T4: until the p99 of what comes is at most 1.5 times what it was before the first fault",
}
MOST = ("messages_waiting", "replies_waiting", "connections", "memory_mb", "dead_rows")

WORDS = Path(__file__).with_name("page.md")  # what surrounds the figures


# ---------------------------------------------------------------- keeping


def keep(path: Path) -> Path:
    """A summary of one result, small enough for the repository."""
    result = json.loads(path.read_text())
    summary = _summary(re.sub(r"^\d+-\d+-", "", path.stem), result)
    seed = f"-{summary['seed']}" if "seed" in summary else ""
    kept = FOLDER / f"{summary['name']}{seed}.json"
    FOLDER.mkdir(parents=True, exist_ok=True)
    for other in read(FOLDER):
        if other["name"] == summary["name"] and other["commit"] != summary["commit"]:
            (FOLDER / other["file"]).unlink()
    kept.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return kept


def _summary(name: str, result: Json) -> Json:
    if "mutants" in result:
        ran = {one["name"] for one in result["mutants"]}
        return {"kind": MUTANTS, "name": "mutants", "commit": result["commit"], "alarms": result["alarms"],
                "not_run": [name for name in PLANTED if name not in ran],
                "mutants": [{n: one[n] for n in ("name", "bug", "case", "outcome", "by", "seconds", "commit")}
                            for one in result["mutants"]]}  # fmt: skip
    if "cases" in result:
        cases = [{n: one[n] for n in ("case", "verdict", "recovery_seconds")} for one in result["cases"]]
        return {"kind": POINTS, "name": "points", "commit": result["commit"], "seed": result["seed"], "cases": cases}
    figures = {figure: result[figure] for figure in FIGURES if figure in result}
    faults = [{n: fault[n] for n in FAULT_FIGURES if fault.get(n) is not None} for fault in result["faults"]]
    broken = sorted({violation["invariant"] for violation in result["violations"]})
    return {"kind": RUN, "name": name, **figures, "broken": broken, "faults": faults}


def read(folder: Path = FOLDER) -> list[Json]:
    """What is kept, each with the name of its file."""
    return [{**json.loads(path.read_text()), "file": path.name} for path in sorted(folder.glob("*.json"))]


# ---------------------------------------------------------------- the page


def page(kept: Sequence[Json]) -> str:
    by_kind: dict[str, list[Json]] = defaultdict(list)
    for summary in kept:
        by_kind[summary["kind"]].append(summary)
    head, not_covered = WORDS.read_text().split("<!-- figures -->")
    parts = [head, *_runs(by_kind[RUN]), *_points(by_kind[POINTS]), *_mutants(by_kind[MUTANTS]), not_covered]
    return "\n".join(part.strip() + "\n" for part in parts)


def _runs(runs: Sequence[Json]) -> Iterator[str]:
    if not runs:
        return
    rows = [
        (run["name"], f"`{run['commit']}`", run["began"][:10], run["seed"], f"{run['seconds'] / 60:.0f}",
         _verdict(run), f"{run['messages']:,}", f"{run['sent again']:,}", f"{run['replies']:,}", len(run["faults"]))
        for run in runs
    ]  # fmt: skip
    titles = ("run", "commit", "day", "seed", "minutes", "verdict", "messages", "sent again", "replies", "faults")
    yield "## The latest figures\n\n" + _table(titles, rows)
    yield from _not_passed(runs)
    yield _totals(runs)
    yield from _recovery(runs)
    yield from _noted(runs)


def _verdict(run: Json) -> str:
    limits = [fault.get("limit") for fault in run["faults"]]
    return "a limit, measured" if limits and all(limits) else str(run["verdict"])


def _not_passed(runs: Sequence[Json]) -> Iterator[str]:
    """Why a run did not pass: invariants that were broken, what faults saw, faults that did not hit."""
    for run in runs:
        if run["verdict"] != "PASS" and not _verdict(run).startswith("a limit"):
            why = [f"{name} is broken" for name in run["broken"] if name != "faults"]
            for kind, words in (("problems", ""), ("missed", " did not hit")):
                why += [f"{fault['name']}{words}: {word}" for fault in run["faults"] for word in fault.get(kind, [])]
            yield f"`{run['name']}` did not pass: {'; '.join(why)}."


def _noted(runs: Sequence[Json]) -> Iterator[str]:
    """What faults counted while they lasted."""
    rows = [
        (fault["name"], fault["title"], run["name"], ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in
                                                             fault["notes"].items()))
        for run in runs for fault in run["faults"] if _hit(fault) and fault.get("notes")
    ]  # fmt: skip
    if rows:
        yield "## What faults counted\n\n" + _table(("fault", "", "run", "counted"), sorted(rows))


def _totals(runs: Sequence[Json]) -> str:
    judged = [run for run in runs if run["verdict"] == "PASS"]
    taken, replies = sum(run["taken"] for run in judged), sum(run["replies"] for run in judged)
    hits = sum(_hit(fault) for run in judged for fault in run["faults"])
    met: dict[str, int] = defaultdict(int)
    for run in judged:
        for name, count in run["met"].items():
            met[name] += count
    hours = sum(run["seconds"] for run in judged) / 3600
    if not judged:
        return "No run passed."
    return (
        f"In the runs that passed, {taken:,} messages were answered 2xx and {replies:,} replies delivered through"
        f" {hits} faults, in {hours:.1f} hours: none was lost, handled twice or out of order.\n\n"
        "With none in so many, 95 % confidence bounds the chance *under these faults* (rule of three): a message is"
        f" lost or swapped in fewer than {_three_in(taken)}, a reply in fewer than {_three_in(replies)}; a fault"
        f" breaks a promise in fewer than {_three_in(hits)}.\n\n"
        f"Met on the way: {', '.join(f'{name} {count:,}' for name, count in met.items())}."
    )


def _three_in(count: int) -> str:
    """The rule of three, in words."""
    if count < 6:
        return "1 of 1 (too few to say)"
    return f"1 of {count // 3:,}"


def _hit(fault: Mapping[str, Any]) -> bool:
    return bool(fault.get("hit", True))


def _recovery(runs: Sequence[Json]) -> Iterator[str]:
    """Per fault and per target: what was taken before the fault ended is handled and delivered."""
    by_fault: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run in runs:
        for fault in run["faults"]:
            if _hit(fault) and "backlog_s" in fault:
                by_fault[(fault["name"], fault["title"], fault["bound_s"])].append(fault["backlog_s"])
    if not by_fault:
        return
    by_target: dict[float, list[float]] = defaultdict(list)
    for (_, _, bound), times in by_fault.items():
        by_target[bound] += times
    slack = next((run["slack"] for run in runs if run.get("slack")), "")
    yield "\n".join([
        "## Recovery\n",
        "Seconds from the end of a fault until all that was taken before is handled and delivered, under load.",
        f"The targets are for a machine that is not also the load: here a run fails above them with slack ({slack}).\n",
        _table(("target", "times", "median", "p95", "max"),
               [(f"{bound:g} s", *_spread(times)) for bound, times in sorted(by_target.items())]),
    ])  # fmt: skip
    titles = ("from the end of a fault", "times", "median", "p95", "max", "not before the next fault")
    yield _table(titles, list(_times(runs)))
    faults = sorted(by_fault.items(), key=_by_number)
    rows = [(name, title, *_spread(times), f"{bound:g} s") for (name, title, bound), times in faults]
    yield _table(("fault", "", "times", "median", "p95", "max", "target"), rows)
    yield from _most(runs)


def _times(runs: Sequence[Json]) -> Iterator[tuple[str, ...]]:
    for name, words in TIMES.items():
        measured = [run for run in runs if any(name in fault for fault in run["faults"])]
        faults = [fault for run in measured for fault in run["faults"] if _hit(fault)]
        times = [fault[name] for fault in faults if name in fault]
        if times:
            yield words, *_spread(times), str(len(faults) - len(times))


def _figure(value: float | None, form: str = ",.0f") -> str:
    return "-" if value is None else f"{value:{form}}"


def _most(runs: Sequence[Json]) -> Iterator[str]:
    """What was looked at once a second."""
    rows = [
        (run["name"], *(_figure(run["most"].get(name)) for name in MOST), _figure(run["usual_p99_s"], ".2f"))
        for run in runs if "most" in run
    ]  # fmt: skip
    if rows:
        yield "Looked at once a second, the most of each; and how long 99 of 100 messages took before the first fault:"
        yield _table(("run", *(name.replace("_", " ") for name in MOST), "usual p99, s"), rows)


def _by_number(item: tuple[tuple[str, str, float], Any]) -> tuple[int, str]:
    """F2 before F10, those with a word last."""
    name = item[0][0]
    return (int(name[1:]), "") if name[1:].isdigit() else (1000, name)


def _spread(times: Sequence[float]) -> tuple[str, ...]:
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return str(len(ordered)), *(f"{value:.1f}" for value in (statistics.median(ordered), p95, ordered[-1]))


def _points(results: Sequence[Json]) -> Iterator[str]:
    for result in results:
        cases = result["cases"]
        passed = [case for case in cases if case["verdict"] == "PASS"]
        points = sorted({case["case"].partition("=")[0] for case in cases})
        times = [case["recovery_seconds"] for case in passed if case["recovery_seconds"] is not None]
        spread = "median {1} s, p95 {2} s, max {3} s".format(*_spread(times)) if times else "-"
        others = "".join(f"* {case['case']}: {case['verdict']}\n" for case in cases if case not in passed)
        yield (
            f"## Single faults at every point\n\n{len(passed)} of {len(cases)} cases passed at `{result['commit']}`,"
            f" seed {result['seed']}: {len(points)} points ({', '.join(points)}), each with a kill, a freeze for longer"
            f" than a lock lives, an error, and all connections cut. Recovery: {spread}.\n\n{others}"
        )


def _mutants(results: Sequence[Json]) -> Iterator[str]:
    for result in results:
        bugs = result["mutants"]
        killed = [bug for bug in bugs if bug["outcome"] == "killed"]
        commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys(bug["commit"] for bug in bugs))
        rows = [
            (f"`{bug['name']}`", bug["bug"], bug["case"].replace("_", " "), " ".join(bug["by"]) or bug["outcome"],
             f"{bug['seconds']:.0f}") for bug in bugs
        ]  # fmt: skip
        yield (
            f"## Planted bugs\n\n{len(killed)} of {len(bugs)} were found at {commits}. Each replaces"
            " a function, a constant or a part of a statement (`tests/chaos/mutants/planted.py`); the case that must"
            " find it passes without it. What found it are the invariants of `tests/chaos/invariants`.\n\n"
            + _table(("bug", "", "case", "found by", "seconds"), rows)
            + (f"\n\nNot run: {', '.join(result['not_run'])}." if result["not_run"] else "")
        )


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(paths: Sequence[str]) -> int:
    for path in paths:
        print(f"kept {keep(Path(path)).relative_to(ROOT)}")
    PAGE.write_text(page(read()))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
