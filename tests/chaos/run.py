"""One run: start, load, one fault after the other, drain, judge, write down.

    verdict = run(seed=7, faults=[...], name="smoke")
    verdict.word                     # PASS, FAIL or INVALID: nothing was violated, but not enough was proven

Everything random comes from the seed. What was found is printed and written to ``.data/chaos/<time>-<name>.json``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import evidence as gathering
from tests.chaos import figures, invariants, versions
from tests.chaos.cluster import Cluster
from tests.chaos.counterexample import tell, timeline
from tests.chaos.evidence import LEFT_BEHIND, Evidence, LockMonitor, Row
from tests.chaos.faults.base import Fault, Scene
from tests.chaos.generator import BY_NAME, Generator
from tests.chaos.history import History
from tests.chaos.samples import Samples
from tests.kit.stack import ROOT

PASS, FAIL, INVALID = "PASS", "FAIL", "INVALID"
EXIT_CODES = {PASS: 0, FAIL: 1, INVALID: 2}

WARM_UP_SECONDS = 4.0
BETWEEN_SECONDS = 1.0
POLL_SECONDS = 0.1
DRAIN_SECONDS = 60.0
LOCKS_SECONDS = 8.0  # a lock that nobody renews lives for 6
# A loaded machine of two cores runs web, workers, servers, platform and people at once: what is asked for under a load
# of its own is given half as much again, and five seconds.
SLACK, SLACK_SECONDS = 1.5, 5.0
# Channels whose speed says something: no gaps to wait for, no small limits.
MEASURED = ["plain", "window", "keep", "forget"]
ALL_OF_IT = ("taken over", "duplicates met", "rescued by the sweeper", "429 said", "sends in doubt", "parked",
             "failed after sent")  # fmt: skip
FEW = ("duplicates met",)


@dataclass
class Verdict:
    """The outcome, as it is written down."""

    word: str
    figures: Mapping[str, Any]
    violations: Sequence[invariants.Violation] = ()
    unproven: Sequence[str] = ()
    story: str = ""

    def as_json(self) -> dict[str, Any]:
        found = [{"invariant": each.invariant, "key": each.key, "words": each.words} for each in self.violations[:200]]
        return {"verdict": self.word, **self.figures, "violations": found, "unproven": list(self.unproven),
                "counterexample": self.story}  # fmt: skip


def run(
    seed: int,
    faults: Sequence[Fault],
    *,
    name: str = "run",
    length: str = "scaled",
    needed: Sequence[str] = ALL_OF_IT,
    crowd: float = 1.0,
    env: Mapping[str, str] | None = None,
    calm_seconds: float = 0.0,
    drain_seconds: float = DRAIN_SECONDS,
) -> Verdict:
    """``length`` of the faults: smoke, scaled or full. ``needed``: what must have been met (I25).

    ``calm_seconds``: load without faults before the first one.
    ``drain_seconds``: the bound of the end; what is not done in twice the time is not waited for.
    """
    folder = ROOT / ".data" / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dt.datetime.now():%Y%m%d-%H%M%S}-{name}.json"
    verdict = Run(seed, faults, path, length=length, crowd=crowd, env=env or {}, calm_seconds=calm_seconds,
                  drain_seconds=drain_seconds).go(needed)  # fmt: skip
    path.write_text(json.dumps(verdict.as_json(), indent=1, default=str) + "\n")
    _print(verdict, path)
    return verdict


@dataclass
class Run:
    """The run while it happens."""

    seed: int
    faults: Sequence[Fault]
    path: Path
    length: str
    crowd: float
    env: Mapping[str, str]
    calm_seconds: float
    drain_seconds: float
    began: float = field(default_factory=time.monotonic)
    done: list[Row] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)  # of the checker itself

    def go(self, needed: Sequence[str]) -> Verdict:
        names = " ".join(fault.name for fault in self.faults)
        self.say(f"seed {self.seed}, commit {commit()}, {len(self.faults)} faults: {names}")
        links = {link for fault in self.faults for link in fault.links}
        env = {name: value for fault in self.faults for name, value in fault.env.items()}
        chance = random.Random(f"{self.seed}:cluster")
        self.history = History(self.path.with_suffix(".history.jsonl"))
        with (
            self._version() as code,
            Cluster(links=links, env={**env, **self.env}, chance=chance, code=code) as self.cluster,
        ):
            self.generator = Generator(self.cluster, self.history, self.seed, crowd=self.crowd)
            self.generator.add_channels()
            self.say("everything runs; people begin to write")
            try:
                seen = self._load_and_gather()
            except BaseException:
                self.generator.abandon()
                raise
            verdict = self._verdict(seen, needed)
            if verdict.word != PASS:
                self.path.with_suffix(".log").write_text(self.cluster.logs())
        self.history.close()
        return verdict

    def _version(self) -> contextlib.AbstractContextManager[Path]:
        """The code with which every process begins: today's, unless a fault begins with an older one."""
        older = [fault.serves() for fault in self.faults if fault.serves]
        return versions.checked_out(older[0]) if older else contextlib.nullcontext(ROOT)

    def _load_and_gather(self) -> Evidence:
        monitor, self.samples = LockMonitor(self.cluster.redis.server.url), Samples(self.cluster)
        self.generator.start()
        time.sleep(WARM_UP_SECONDS / 2)
        self.warm = time.monotonic_ns()
        time.sleep(WARM_UP_SECONDS / 2 + self.calm_seconds)
        before = gathering.look_at_processes(self.cluster)
        connections = self.cluster.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        for number, fault in enumerate(self.faults, 1):
            self._one_fault(number, fault)
        self.generator.stop()
        self.generator.finish()
        self.say("nobody writes any more; draining")
        drained = self._drain()
        self.generator.end()
        self.samples.stop()
        seen = self._gather(drained)
        monitor.stop()
        seen.lock_faults, seen.monitored = monitor.faults, monitor.releases
        seen.processes = (before, gathering.look_at_processes(self.cluster))
        seen.connections_before = connections
        self.say("judging")
        return seen

    # ------------------------------------------------------------ faults

    def _one_fault(self, number: int, fault: Fault) -> None:
        scene = self._scene(number, fault)
        begun = time.monotonic_ns()
        try:
            fault.run(scene)
        except Exception as error:
            self.troubles.append(f"{fault.name} could not be done: {type(error).__name__}: {error}")
        healed = scene.healed or time.monotonic_ns()
        allowed = fault.bound * SLACK + SLACK_SECONDS
        backlog, answered = self._recovered(healed, allowed), self._first_answer(healed)
        row = {"name": fault.name, "title": fault.title, "seconds": scene.seconds, "begun": begun, "healed": healed}
        row |= {"bound_s": fault.bound, "allowed_s": allowed, "backlog_s": backlog, "answered_s": answered}
        row |= {"evidence": scene.evidence, "missed": scene.missed, "problems": scene.problems, "notes": scene.notes}
        row |= {"hit": bool(scene.evidence and not scene.missed), "limit": fault.limit, "allows": sorted(fault.allows)}
        self.done.append(row)
        took = "more than allowed" if backlog is None else f"{backlog:.1f} s"
        missed = f", IT DID NOT HIT: {'; '.join(scene.missed)}" if scene.missed else ""
        self.say(f"{number}/{len(self.faults)} {fault.name}: {fault.title}. Recovered in {took}{missed}")
        time.sleep(BETWEEN_SECONDS)

    def _scene(self, number: int, fault: Fault) -> Scene:
        return Scene(cluster=self.cluster, generator=self.generator, history=self.history,
                     chance=random.Random(f"{self.seed}:{number}:{fault.name}"), seconds=fault.lasts(self.length),
                     full=self.length == "full")  # fmt: skip

    def _recovered(self, healed: int, seconds: float) -> float | None:
        """Seconds until what was taken before the fault ended is done: T3."""
        values = {"at": self._wall(healed), "places": MEASURED, "but": [self.unlucky]}
        while (took := (time.monotonic_ns() - healed) / 1e9) < seconds:
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self.cluster.servers.database_url) as pg,
            ):
                row = pg.execute(LEFT_BEHIND, values).fetchone()
                if row is not None and row[0] == 0:
                    return took
            time.sleep(POLL_SECONDS)
        return None

    @property
    def unlucky(self) -> str:
        """Whose messages fail on purpose: he waits for his retries."""
        return self.generator.name_user(BY_NAME["plain"], 0)

    def _first_answer(self, healed: int) -> float | None:
        """Seconds until the first 2xx: T1. One that was on its way counts: somebody answered."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            answers = (event["t"] for event in self.history.of("webhook") if event["k"] == "ok")
            after = min((t for t in answers if t > healed), default=None)
            if after is not None:
                return (after - healed) / 1e9
            time.sleep(POLL_SECONDS)
        return None

    # ------------------------------------------------------------ the end

    def _drain(self) -> float | None:
        begun = time.monotonic()
        while not (self.cluster.drained() and self._nothing_waits()):
            if time.monotonic() - begun > 2 * self.drain_seconds:
                return None
            time.sleep(0.2)
        drained = time.monotonic() - begun
        with contextlib.suppress(Exception), self.cluster.redis.client() as client:
            end = time.monotonic() + LOCKS_SECONDS
            while time.monotonic() < end and any(client.scan_iter("{lanes}:*ing:*", count=1000)):
                time.sleep(0.2)
        return drained

    def _nothing_waits(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self.cluster.value("SELECT count(*) = 0 FROM message WHERE status IN ('waiting', 'pending')"))
        return False

    def _gather(self, drained: float | None) -> Evidence:
        with self.cluster.redis.client() as client:
            keys = gathering.redis_keys(client)
        channels = self.generator.channels.values()
        names = ("secret", "secret_token", "token", "app_secret", "access_token", "verify_token")
        canaries = [self.generator.run]
        canaries += [each.secrets[name] for each in channels for name in names if name in each.secrets]
        canaries += [self.cluster.env["SECRET_KEY"], self.cluster.env["CREDENTIALS_KEYS"]]
        return Evidence(run=self.generator.run, began=self.history.began, events=self.history.events,
                        rows=gathering.dump(self.cluster.servers.database_url), calls=self.cluster.platform.calls(),
                        begun=gathering.read_begun(self.cluster.folder), redis_keys=keys,
                        leaks=gathering.find_leaks(self.cluster, canaries), faults=self.done, drained_seconds=drained,
                        drain_bound=self.drain_seconds)  # fmt: skip

    def _verdict(self, seen: Evidence, needed: Sequence[str]) -> Verdict:
        violations = invariants.judge(seen)
        unproven = [*self.troubles, *self.generator.troubles, *self.samples.troubles,
                    *invariants.unproven(seen, needed)]  # fmt: skip
        word = FAIL if violations else INVALID if unproven else PASS
        return Verdict(word, self._figures(seen), violations, unproven, tell(seen, violations) if violations else "")

    def _figures(self, seen: Evidence) -> dict[str, Any]:
        attempts = sum(map(len, seen.attempts.values()))
        return {
            "commit": commit(),
            "seed": self.seed,
            "began": dt.datetime.fromtimestamp(self.history.began.w / 1e9, dt.UTC).isoformat(),
            "seconds": round(time.monotonic() - self.began, 1),
            "messages": len(seen.sent),
            "taken": len(seen.acked),
            "requests": attempts,
            "sent again": attempts - len(seen.attempts),
            "handled": sum(row["status"] == "handled" for row in seen.rows["messages"]),
            "replies": len(seen.rows["replies"]),
            "shown": sum(map(len, seen.shown.values())),
            "shown again": _shown_again(seen),
            "calls in flight at a 429": invariants.calls_in_flight_at_429(seen),
            "lock releases watched": seen.monitored,
            "missing numbers": sum(row["status"] == "missing" for row in seen.rows["messages"]),
            "late": sum(row["late"] for row in seen.rows["messages"]),
            "met": invariants.seen_to_happen(seen),
            "drained_s": seen.drained_seconds,
            "seconds from stored to handled": figures.percentiles(figures.handled(seen, MEASURED, self.unlucky)),
            "recovery_s": figures.percentiles([row["backlog_s"] for row in self.done if row["backlog_s"] is not None]),
            "slack": f"bounds x {SLACK:g} + {SLACK_SECONDS:g} s",
            **self._faults(seen),
            "most": self.samples.most(),
            "samples": self.samples.taken,
        }

    def _faults(self, seen: Evidence) -> dict[str, Any]:
        """Each fault's times: T1 ``answered_s``, T2 ``committed_s``, T3 ``backlog_s``, T4 ``usual_s``."""
        waits = figures.answered(seen, MEASURED, self.unlucky)
        ends = [*(self._wall(row["begun"]) for row in self.done), float("inf")]
        usual = figures.usual([wait for wait in waits if wait[0] > self._wall(self.warm)], ends[0])
        rows = []
        for row, until in zip(self.done, ends[1:], strict=True):
            times = self._fault(row, seen)
            if usual is not None:
                times["usual_s"] = figures.as_usual_again(waits, self._wall(row["healed"]), until, usual)
            rows.append(times)
        return {"usual_p99_s": usual, "faults": rows}

    def _wall(self, monotonic: int) -> float:
        """Seconds since the epoch."""
        return (self.history.began.w + monotonic - self.history.began.t) / 1e9

    def _fault(self, row: Row, seen: Evidence) -> Row:
        began, healed = self.history.began.seconds(row["begun"]), self.history.began.seconds(row["healed"])
        ended = (self.history.began.wall_seconds(turn["ended"]) for turn in seen.rows["turns"])
        first = min((at - healed for at in ended if at > healed), default=None)
        row = {**row, "begun": round(began, 3), "healed": round(healed, 3), "committed_s": first}
        if row["backlog_s"] is None or row["backlog_s"] > row["bound_s"]:
            row["slowest"] = self._slowest(seen, healed)
        return row

    def _slowest(self, seen: Evidence, healed: float) -> list[str]:
        """Of what was stored before the fault ended, the story of the message that was answered last."""
        ends = {row["message_id"]: row["settled"] for row in seen.rows["replies"] if row["settled"]}
        at = self.history.began.wall_seconds
        rows = [row for row in seen.rows["messages"] if row["ch"] in MEASURED and row["u"] != self.unlucky]
        done = (row for row in rows if row["settled"] and row["id"] in seen.key_by_id)
        before = [row for row in done if at(row["received"]) < healed]
        last = max(before, key=lambda row: max(row["settled"], ends.get(row["id"]) or 0.0), default=None)
        return timeline(seen, seen.key_by_id[last["id"]]) if last else []

    def say(self, words: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {words}", flush=True)


def worst_code(codes: Sequence[int]) -> int:
    """Return the exit code of several runs: a broken promise or a crash, then too little proof, then 0."""
    return next((code for code in codes if code not in (EXIT_CODES[PASS], EXIT_CODES[INVALID])), max(codes))


def _shown_again(seen: Evidence) -> int:
    return sum(len(each) - len({call["text"] for call in each}) for each in seen.shown.values())


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or os.environ.get("HEROKU_SLUG_COMMIT", "unknown")


def _print(verdict: Verdict, path: Path) -> None:
    figures = verdict.figures
    for name in ("messages", "taken", "requests", "replies", "shown", "shown again", "met", "drained_s", "recovery_s"):
        print(f"  {name}: {figures[name]}")
    by_invariant: dict[str, list[invariants.Violation]] = {}
    for violation in verdict.violations:
        by_invariant.setdefault(violation.invariant, []).append(violation)
    for name, found in by_invariant.items():
        first = f"{'/'.join(map(str, found[0].key or ()))} {found[0].words}".strip()
        print(f"{name} ({invariants.INVARIANTS[name][0]}): {len(found)} violations, first: {first}")
    if verdict.story:
        print(verdict.story)
    for reason in verdict.unproven:
        print(f"not proven: {reason}")
    where = os.path.relpath(path, ROOT)
    print(f"{verdict.word}  seed {figures['seed']}  {figures['seconds']:.0f} s  {where}", flush=True)
