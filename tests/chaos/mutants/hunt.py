"""Runs each planted bug where it must be found, and says which were found, by what, and after how long.

A bug counts as killed when its case sees broken what the bug breaks. One that lives, or that could not be planted,
is a failure of the checker. Every case runs without any bug first, and must pass: an alarm that always rings proves
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.mutants.planted import MUTANTS, Mutant
from tests.kit.guard import watch_over_this_process
from tests.kit.stack import ROOT

FOLDER = ROOT / ".data" / "chaos"
RESULT = FOLDER / "mutants.json"
ONE_SECONDS = 220  # for one run, start and judgement included
DRAIN_SECONDS = 45.0  # what is not done by then is not done; a reply may wait 20 s for a status


@dataclass(frozen=True, kw_only=True)
class Case:
    """A short run. ``calm``: seconds of load before its faults; ``crowd``: how many people, of those of a full run."""

    faults: tuple[str, ...] = ()
    seed: int = 1
    calm: float = 2.0
    crowd: float = 0.6


CASES = {
    "plain": Case(calm=12.0),
    "late": Case(faults=("late-to-a-window",)),
    "postgres_crash": Case(faults=("F9",)),
    "flushall": Case(faults=("F15",)),
    "redis_silent": Case(faults=("F19",)),
    "unwoken": Case(faults=("unwoken",)),
    "frozen_worker": Case(faults=("frozen-in-a-turn",)),
    "frozen_sender": Case(faults=("sender-frozen-in-a-call",)),
    "killed_handlers": Case(faults=("F1", "F1", "killed-with-strangers")),
    "killed_senders": Case(faults=("sender-killed", "sender-killed")),
    "workers_away": Case(faults=("F3",)),
    "platform_errors": Case(faults=("F30",)),
    "accept_then_reset": Case(faults=("F31",)),
    "throttled": Case(faults=("F29",)),
    "poison": Case(faults=("F38",)),
    "bot_down": Case(faults=("crm-down",)),
    "take_over": Case(faults=("taken-over-meanwhile",)),
    "hand_back": Case(faults=("hand-back",)),
    "long_turns": Case(faults=("long-turns",)),
    "sorry_behind": Case(faults=("sorry-behind",)),
    "burst": Case(faults=("burst",)),
}

KILLED, SURVIVED, NOT_APPLIED, BROKEN = "killed", "SURVIVED", "NOT APPLIED", "RUN BROKEN"


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What became of one bug. ``by``: what was seen broken, of what it breaks; ``also``: what else was."""

    name: str
    bug: str
    case: str
    outcome: str
    by: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    seconds: float = 0.0
    words: str = ""


# ---------------------------------------------------------------- all of them


def run_all(names: Sequence[str] | None = None) -> int:
    """Every bug, or those that are named; an exit code."""
    unknown = set(names or ()) - set(MUTANTS)
    if unknown:
        raise SystemExit(f"no such mutant: {', '.join(sorted(unknown))}")
    wanted = [MUTANTS[name] for name in names or MUTANTS]
    FOLDER.mkdir(parents=True, exist_ok=True)
    cases = list(dict.fromkeys(one.case for one in wanted))
    print(f"{len(wanted)} planted bugs in {len(cases)} cases", flush=True)
    alarms = [case for case in cases if not _passes_without(case)]
    if not names:
        RESULT.unlink(missing_ok=True)
    kills = []
    for one in wanted:
        if one.case not in alarms:
            kills.append(_told(_hunt(one)))
            _write(kills, alarms)
    return _summary(kills, alarms)


def _passes_without(case: str) -> bool:
    """Run the case without any bug; once more where that proved too little, never where a promise was broken."""
    for _ in range(2):
        seen = _run(case, "")
        print(f"  {case:<20} without any bug: {seen['word']} in {seen['seconds']:.0f} s", flush=True)
        if seen["word"] == "PASS":
            return True
        print(f"      {seen['words']}", flush=True)
        if seen["word"] != "INVALID":
            break
    return False


def _hunt(mutant: Mutant) -> Kill:
    seen = _run(mutant.case, mutant.name)
    broken = set(seen["broken"])
    by, also = tuple(sorted(broken & mutant.breaks)), tuple(sorted(broken - mutant.breaks))
    if "NotApplied" in seen["words"]:
        outcome = NOT_APPLIED
    elif by:
        outcome = KILLED
    else:
        outcome = BROKEN if seen["word"] == "BROKEN" else SURVIVED
    return Kill(name=mutant.name, bug=mutant.bug, case=mutant.case, outcome=outcome, by=by, also=also,
                seconds=seen["seconds"], words=seen["words"])  # fmt: skip


def _told(kill: Kill) -> Kill:
    also = f" (also {' '.join(kill.also)})" if kill.also else ""
    by = f" by {' '.join(kill.by)}" if kill.by else ""
    print(f"  {kill.name:<36} {kill.outcome}{by}{also} in {kill.case}, {kill.seconds:.0f} s", flush=True)
    if kill.outcome != KILLED:
        print(f"      {kill.bug}: {kill.words}", flush=True)
    return kill


def _write(kills: Sequence[Kill], alarms: Sequence[str]) -> None:
    """After each: the results of some replace theirs among those from before."""
    from tests.chaos.run import commit

    before = {one["name"]: one for one in json.loads(RESULT.read_text())["mutants"]} if RESULT.exists() else {}
    found = {**before, **{kill.name: {**asdict(kill), "commit": commit()} for kill in kills}}
    result = {"commit": commit(), "alarms": list(alarms), "mutants": [found[name] for name in MUTANTS if name in found]}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _summary(kills: Sequence[Kill], alarms: Sequence[str]) -> int:
    left = [kill for kill in kills if kill.outcome != KILLED]
    print(f"{len(kills) - len(left)} of {len(kills)} planted bugs killed", flush=True)
    for case in alarms:
        print(f"case {case} rings without any bug: its mutants were not run", flush=True)
    for kill in left:
        print(f"{kill.outcome}: {kill.name}: {kill.bug}", flush=True)
    return 1 if left or alarms else 0


# ---------------------------------------------------------------- one run, in a process of its own


def _run(case: str, planted: str) -> dict[str, Any]:
    """What one run came to: its word, what was broken, the first words about it."""
    began = time.monotonic()
    log = FOLDER / f"mutant-{planted or f'none-{case}'}.log"
    answer = log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.chaos.mutants.hunt", "--case", case, "--plant", planted, "--answer",
               str(answer)]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ONE_SECONDS)
        finally:  # also where we are told to stop: it takes its processes with it
            process.terminate()
            process.wait()
    seconds = round(time.monotonic() - began, 1)
    if answer.exists():
        return {**json.loads(answer.read_text()), "seconds": seconds}
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return {"word": "BROKEN", "broken": [], "words": f"{' '.join(last)[:300]} (see {log.name})", "seconds": seconds}


def _play(case: Case, planted: str, answer: Path) -> None:
    from tests.chaos.faults import FAULTS
    from tests.chaos.run import run

    faults = [FAULTS[name] for name in case.faults]
    env = {name: value for fault in faults for name, value in fault.env.items()}
    verdict = run(case.seed, faults, name=f"mutant-{planted or 'none'}", needed=("duplicates met",), crowd=case.crowd,
                  calm_seconds=case.calm, drain_seconds=DRAIN_SECONDS,
                  env={**env, "CHAOS_MUTANT": planted})  # fmt: skip
    first = {violation.invariant: violation.words for violation in reversed(verdict.violations)}
    words = "; ".join([*(f"{name}: {said}" for name, said in first.items()), *verdict.unproven])
    answer.write_text(json.dumps({"word": verdict.word, "broken": sorted(first), "words": words[:1000]}))


def main() -> None:
    watch_over_this_process()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description="One case with one planted bug, or with none.")
    parser.add_argument("--case", required=True, choices=sorted(CASES))
    parser.add_argument("--plant", default="")
    parser.add_argument("--answer", type=Path, required=True)
    arguments = parser.parse_args()
    _play(CASES[arguments.case], arguments.plant, arguments.answer)


if __name__ == "__main__":
    main()
