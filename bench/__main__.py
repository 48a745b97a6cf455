"""``python -m bench [case ...]``: measure these cases. Without a case: those that compare pipelines side by side.

--all       every case                     --add     add to the cases of the latest run
--short     tiny, only to see that measuring works   --docs    write docs/benchmarks.md from the latest run
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from dataclasses import replace

from bench import report
from bench.cases import ASKED_FOR, CASES, COMPARED
from bench.runs import SHORT, Result, Scale
from bench.world import World
from tests.kit.guard import watch_over_this_process

KNOWN = {**CASES, **ASKED_FOR}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", usage=__doc__)
    parser.add_argument("cases", nargs="*")
    for name in ("--all", "--add", "--short", "--docs"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--seconds", type=float)
    chosen = parser.parse_args()
    names = chosen.cases or list(CASES if chosen.all or chosen.short else () if chosen.docs else COMPARED)
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; known: {', '.join(KNOWN)}")
    watch_over_this_process()
    # On SIGTERM, stop the processes that this one started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = report.latest() if chosen.add or (chosen.docs and not names) else report.begin()
    measure(run, names, scale(chosen))
    if not chosen.short:
        report.print_table(run)
    if chosen.docs:
        report.write_page(run)
    return int(any(case["faults"] for case in run["cases"].values()))


def scale(chosen: argparse.Namespace) -> Scale:
    made = SHORT if chosen.short else Scale(growth=float(os.environ.get("GROWTH_SCALE") or 1))
    return replace(made, seconds=chosen.seconds) if chosen.seconds else made


def at_a_possible_rate(run: report.Run, wanted: Scale) -> Scale:
    """Limit the rate to a third of the measured end-to-end rate: beyond it a slow machine only shows its own queue."""
    most = run["cases"].get("e2e", {}).get("figures", {}).get("per_second")
    return replace(wanted, rate=min(wanted.rate, most / 3)) if most else wanted


def measure(run: report.Run, names: list[str], wanted: Scale) -> None:
    for place, name in enumerate(names, 1):
        print(f"[{place}/{len(names)}] {name}: {(KNOWN[name].__doc__ or '').strip()}", flush=True)
        began = time.monotonic()
        try:
            result = KNOWN[name](World(), at_a_possible_rate(run, wanted))
        except Exception as error:  # measure the other cases all the same; the run ends with code 1
            traceback.print_exc()
            result = Result(name=name, faults=[f"not measured: {type(error).__name__}: {error}"])
        report.print_result(result)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        report.add(run, result, time.monotonic() - began, keep=wanted is not SHORT)


if __name__ == "__main__":
    sys.exit(main())
