"""What a fault is: a generator function that hurts, yields while it lasts, heals, and says what it saw.

    @fault("F2", "A whole host of workers is gone for a while", bound=15, seconds=60)
    def kill_host(scene: Scene) -> Iterator[None]:
        hit = scene.host("A").kill(again=False)
        yield
        scene.host("A").start()
        scene.saw("all its processes are gone", all(map(gone, hit)))

``saw`` is evidence that the fault hit its target: one thing that was not seen, and the run proved nothing. ``wrong`` is
a promise that was broken meanwhile and that only this fault can judge.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis

from tests.chaos.cluster import Cluster, Part
from tests.chaos.generator import Generator
from tests.chaos.history import Event, History
from tests.chaos.proxy import Link
from tests.kit.stack import state

MOST_SECONDS = 20.0  # that a fault lasts where durations are scaled
FIND_SECONDS = 20.0  # to find somebody to hurt, also right after a fault that takes so long to recover from

Act = Callable[["Scene"], Iterator[None]]


@dataclass(kw_only=True)
class Scene:
    """What a fault may touch, and what it says."""

    cluster: Cluster
    generator: Generator
    history: History
    chance: random.Random
    seconds: float  # it lasts
    full: bool = False  # with the table's own durations
    evidence: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # figures for the report
    began: int = 0  # monotonic ns: it has hit
    healed: int = 0  # the last heal was begun: recovery counts from here

    # ------------------------------------------------------------ what it says

    def saw(self, what: str, happened: object) -> None:
        (self.evidence if happened else self.missed).append(what)

    def wrong(self, what: str, happened: object = True) -> None:
        if happened:
            self.problems.append(what)

    # ------------------------------------------------------------ parts

    def host(self, name: str = "") -> Part:
        return self.cluster.hosts[name or self.chance.choice(sorted(self.cluster.hosts))]

    def web(self) -> Part:
        return self.chance.choice(self.cluster.web)

    def link(self, name: str) -> Link:
        return self.cluster.links[name]

    @contextlib.contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        with contextlib.closing(self.cluster.redis.client()) as client:
            yield client

    # ------------------------------------------------------------ looking

    def wait(self, condition: Callable[[], object], seconds: float = FIND_SECONDS) -> bool:
        """Whether it came true in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(psycopg.OperationalError, redis.RedisError):
                if condition():
                    return True
            time.sleep(0.05)
        return False

    def value(self, sql: str, *params: object) -> Any:
        """Direct, past every link."""
        return self.cluster.value(sql, *params)

    def stored(self) -> int:
        return int(self.value("SELECT count(*) FROM message"))

    def committed(self) -> int:
        return int(self.value("SELECT count(*) FROM turn WHERE outcome = 'committed'"))

    def busy(self, role: str = "handle", host: str = "") -> int:
        """A process of ``role`` that has lanes in hand now, of ``host`` or of any."""
        wanted = "SELECT pid FROM worker WHERE kind = %s AND NOT dead AND running <> '[]' ORDER BY random()"

        def look() -> list[int]:
            hosts = [host] if host else sorted(self.cluster.hosts)
            alive = {pid for name in hosts for pid in self.cluster.pids(name, role)}
            return [pid for (pid,) in self.cluster.query(wanted, role) if pid in alive]

        assert self.wait(look), f"no {role} process has anything in hand"
        return (look() or self.cluster.pids(host or "A", role))[0]

    def hit(self, part: Part, words: str) -> tuple[str, int]:
        """Start ``part`` anew with a failpoint, and wait until it was hit, once: point and pid."""
        self._disarm()
        record = self.cluster.folder / "failpoints.txt"
        record.unlink(missing_ok=True)
        part.failpoints(f"{words}!")
        part.kill()
        happened = self.wait(lambda: record.exists() and record.read_text().endswith("\n"), 40)
        part.failpoints("")
        self.saw(f"{words} was hit", happened)
        if not happened:
            return words, 0
        point, _, pid = record.read_text().splitlines()[0].split()
        return point, int(pid)

    def _disarm(self) -> None:
        """What is started again inside a host has its failpoint still, which was hit once; then it must be gone."""
        armed = [part for part in self.cluster.parts() if part.armed]
        for part in armed:
            part.kill()
        if armed:
            self.wait(lambda: not any(part.armed for part in armed) and self.cluster.complete(), 40)

    def attempts(self, until: int = 0, place: str = "") -> Iterator[tuple[int, float, int]]:
        """Authentic webhooks begun while it lasted: status, seconds until the answer, moment of the beginning."""
        begun: dict[int, Event] = {}
        for event in self.history.of("webhook"):
            if place not in ("", event["ch"]):
                continue
            if event["k"] == "invoke":
                begun[event["a"]] = event
            elif (first := begun.pop(event["a"], None)) and self.began <= first["t"] <= (until or self.healed):
                yield event["status"], (event["t"] - first["t"]) / 1e9, first["t"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of trouble. ``bound``: seconds from its end until all is handled and delivered again."""

    name: str
    title: str
    act: Act
    bound: float
    seconds: float  # the table's own duration
    scaled: float
    smoke: float = 0.0  # how long it lasts in the smoke set; 0: it is not in it
    links: frozenset[str] = frozenset()
    env: Mapping[str, str] = field(default_factory=dict)  # of every process, in a run of this fault
    allows: Collection[str] = ()  # what it makes right that is wrong elsewhere: "parks", "parks replies"
    needs: Callable[[], str] = lambda: ""  # why it is not possible here
    alone: bool = False  # it needs a run of its own
    serves: Callable[[], str] | None = None  # the commit with which every process begins
    limit: bool = False  # what it breaks is measured and published, not judged

    def lasts(self, length: str) -> float:
        """Seconds, by the length of the run: smoke, scaled or full."""
        return {"smoke": self.smoke or self.scaled, "scaled": self.scaled, "full": self.seconds}[length]

    def run(self, scene: Scene) -> None:
        """Hurt, wait, heal; what was begun is always ended."""
        scene.history.add("nem", "event", "fault", name=self.name, title=self.title, seconds=scene.seconds)
        try:
            with contextlib.contextmanager(self.act)(scene):
                scene.began = scene.began or time.monotonic_ns()
                time.sleep(scene.seconds)  # a fault in several steps has left here what remains
                scene.healed = time.monotonic_ns()
        except AssertionError as missing:  # nobody was there to be hurt
            scene.saw(str(missing), False)
        finally:
            scene.healed = scene.healed or time.monotonic_ns()
            scene.history.add("nem", "event", "heal", name=self.name, evidence=scene.evidence, missed=scene.missed)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    title: str,
    *,
    bound: float,
    seconds: float,
    scaled: float | None = None,
    links: Collection[str] = (),
    **more: Any,
) -> Callable[[Act], Act]:
    """Enter a fault in the table."""

    def enter(act: Act) -> Act:
        assert name not in FAULTS, name
        lasts = min(seconds, MOST_SECONDS) if scaled is None else scaled
        FAULTS[name] = Fault(name=name, title=title, act=act, bound=bound, seconds=seconds, scaled=lasts,
                             links=frozenset(links), **more)  # fmt: skip
        return act

    return enter


# ---------------------------------------------------------------- processes


def gone(pid: int) -> bool:
    return state(pid) in ("", "Z")


def send(number: int, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stopped(*pids: int) -> bool:
    return bool(pids) and all(state(pid) == "T" for pid in pids)


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """SIGSTOP, and whatever happens SIGCONT."""
    send(signal.SIGSTOP, *pids)
    try:
        yield
    finally:
        send(signal.SIGCONT, *pids)


@functools.cache
def no_private_mounts() -> str:
    """Why a process cannot be given mounts of its own here; '' when it can."""
    command = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return f"unshare is not here: {error.strerror}"
    return "" if done.returncode == 0 else f"no right to mount: {done.stderr.strip()}"
