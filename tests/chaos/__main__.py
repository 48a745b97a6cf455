"""``python -m tests.chaos smoke|standard|all|F6 ...|mutants|report``. Exit code 0 PASS, 1 FAIL, 2 INVALID.

smoke      a handful of faults under one load, under three minutes
standard   every fault, none longer than 20 s
all        the failpoint cases, then every fault for as long as the table says (about 90 minutes)
F6 F15     these, in this order (``--full``: for as long as the table says)
mutants    every planted bug, or those that are named: each must be found (about an hour)
report     docs/reliability.md, from the figures that are kept; those of results that are named are kept first
"""

from __future__ import annotations

import argparse
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence

from tests.chaos import report
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.mutants import hunt
from tests.chaos.run import EXIT_CODES, FAIL, FEW, INVALID, PASS, Verdict, run, worst_code
from tests.kit.guard import watch_over_this_process
from tests.kit.stack import ROOT


def main() -> int:
    watch_over_this_process()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended, not left behind
    if sys.argv[1:2] == ["mutants"]:
        return hunt.run_all(sys.argv[2:] or None)
    if sys.argv[1:2] == ["report"]:
        return report.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("what", nargs="+", help="smoke, standard, all, names of faults, mutants, report")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--full", action="store_true", help="faults last as long as the table says")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    if arguments.what == ["smoke"]:
        faults = shuffled([fault for fault in FAULTS.values() if fault.smoke], seed)
        return worst([run(seed, faults, name="smoke", length="smoke")])
    if arguments.what == ["standard"]:
        return worst(many(seed, "scaled"))
    if arguments.what == ["all"]:
        points = subprocess.run([sys.executable, "-m", "tests.chaos.points", "--seed", str(seed)], cwd=ROOT).returncode
        return worst_code([points, worst(many(seed, "full"))])
    unknown = [name for name in arguments.what if name not in FAULTS]
    if unknown:
        parser.error(f"no such fault: {' '.join(unknown)}; there are {' '.join(FAULTS)}")
    return worst([one([FAULTS[name] for name in arguments.what], seed, "full" if arguments.full else "scaled")])


def shuffled(faults: Sequence[Fault], seed: int) -> list[Fault]:
    return random.Random(f"{seed}:order").sample(list(faults), len(faults))


def many(seed: int, length: str) -> list[Verdict]:
    """All that is possible here: most in one run, those that need a cluster of their own after it."""
    possible = [fault for fault in FAULTS.values() if not _impossible(fault)]
    together = shuffled([fault for fault in possible if not fault.alone], seed)
    verdicts = [run(seed, together, name="all" if length == "full" else "standard", length=length)]
    return verdicts + [one([fault], seed, length) for fault in possible if fault.alone]


def one(faults: Sequence[Fault], seed: int, length: str) -> Verdict:
    """A run of a few: they must hit, and cannot meet everything. A limit is published, not judged."""
    reasons = list(filter(None, map(_impossible, faults)))
    if reasons:
        return Verdict(INVALID, {}, unproven=reasons)
    verdict = run(seed, faults, name="-".join(fault.name for fault in faults)[:60], length=length, needed=FEW)
    if verdict.word == FAIL and all(fault.limit for fault in faults):
        print("This is a limit that is known: it is measured, not judged.")
        verdict.word = PASS
    return verdict


def _impossible(fault: Fault) -> str:
    reason = fault.needs()
    if reason:
        print(f"{fault.name} ({fault.title}) is left out here: {reason}")
    return reason


def worst(verdicts: Sequence[Verdict]) -> int:
    return worst_code([EXIT_CODES[verdict.word] for verdict in verdicts])


if __name__ == "__main__":
    sys.exit(main())
