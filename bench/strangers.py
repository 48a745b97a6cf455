"""What strangers can make us spend, kind by kind: time of webhooks, CPU, memory, rows, disk, threads, sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import stat
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.crowds import KINDS, LEANING
from bench.measures import Cost, Snapshot, parts, pss
from bench.runs import Result, Scale, by_turns, milliseconds
from bench.stack import Ours, wait_until
from bench.world import Request, Stream, World

RATE = 50.0  # signed webhooks a second
PEOPLE = 200  # write them
CONNECTIONS = 16
WARM_SECONDS = 1.0  # at most, before each measurement
LOOK_SECONDS = 0.5  # between two looks at the web process
OURS = "0100007F"  # 127.0.0.1 in /proc/net/tcp: the load generator; strangers have other addresses
WRITTEN = ("inserted", "updated", "deleted")
THERE = 0.9  # the share of slow sockets that the web process must have; the others are being reopened
SLOW = ("slow_readers", "slow_writers")
UNPROVEN = ("large_bodies", "unknown_ids", *SLOW)  # nothing that they send may be stored


@dataclass(kw_only=True)
class Watch:
    """What the web process has, twice a second. It runs on a thread: the load generator must not wait for it."""

    port: int
    pids: list[int]
    folder: Path  # of temporary files and the spool
    looks: list[dict[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.look()
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        self.looks.append({"memory_mb": sum(map(pss, self.pids)) / 1024, "threads": sum(map(threads, self.pids)),
                           "disk_bytes": sum(map(size, self.folder.rglob("*"))), **sockets(self.port)})  # fmt: skip

    def most(self) -> dict[str, float]:
        return {name: max(look[name] for look in self.looks) for name in self.looks[0]}

    def usual(self, name: str) -> float:
        return statistics.median(look[name] for look in self.looks)


def size(path: Path) -> int:
    """Bytes of a file; 0 of a folder, and of a file that is gone by now."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0


def threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def sockets(port: int) -> dict[str, float]:
    """Connections that the web process has accepted; of strangers; of these, with bytes that cannot be sent.

    ``unsent_mb`` is memory of the kernel.
    """
    found = {"sockets": 0.0, "slow_writers": 0.0, "slow_readers": 0.0, "unsent_mb": 0.0}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_, inode = line.split()[:10]
        if local.endswith(f":{port:04X}") and state == "01" and inode != "0":
            found["sockets"] += 1
            if not remote.startswith(OURS):
                found["slow_writers"] += 1
                unsent = int(queues[:8], 16)
                found["slow_readers"] += unsent > 0
                found["unsent_mb"] += unsent / 2**20
    return found


@dataclass(kw_only=True)
class Period:
    """What was measured while strangers of one kind leaned on the site, or none."""

    waited: list[float]  # seconds until each webhook was answered
    refused: int
    before: Snapshot
    after: Snapshot
    watch: Watch
    rows: int  # stored for strangers, of all tables
    log_bytes: int
    got: dict[str, int]  # what strangers were answered

    @property
    def p99_ms(self) -> float:
        return milliseconds(self.waited, 0.99)

    def used(self) -> dict[str, float]:
        """What is used, a second."""
        seconds = self.after.at - self.before.at
        cpu = {part: self.after.cpu[part] - self.before.cpu.get(part, 0.0) for part in self.after.cpu}
        written = sum(self.after.database[name] - self.before.database[name] for name in WRITTEN)
        return {
            "web_cores": cpu["web"] / seconds,
            "postgres_cores": cpu["postgres"] / seconds,
            "strangers_cores": cpu.get("strangers", 0.0) / seconds,
            "others_cores": Cost(self.before, self.after, 1).others,
            "rows_written": written / seconds,
            "log_kb": self.log_bytes / 1024 / seconds,
            "strangers_answered": sum(count for status, count in self.got.items() if status != "cut") / seconds,
            "strangers_cut": self.got.get("cut", 0) / seconds,
        }


class Site:
    """The measured web process, the people who write to it, and strangers who lean on it."""

    def __init__(self, world: World, scale: Scale, ours: Ours, folder: Path) -> None:
        self.world, self.scale, self.ours, self.folder = world, scale, ours, folder
        self.people: Iterator[Request] = iter(ours.people(ours.add_channel(world.api), PEOPLE))
        said = json.loads(ours.run("-m", "bench.pages", "0"))
        self.known = {"port": ours.port, "webhook": guarded_path(ours), "messages": said["messages"],
                      "sockets": scale.sockets}  # fmt: skip
        self._runs = itertools.count(1)
        # Everybody writes once. From now on each message has the same number of rows.
        self._write(itertools.islice(self.people, PEOPLE))
        rows = self._rows()
        self._write(itertools.islice(self.people, PEOPLE))
        self._rows_of_a_message = (self._rows() - rows) / PEOPLE

    def _write(self, requests: Iterator[Request]) -> None:
        self.world.run(Stream("everybody", self.ours.port, requests, connections=CONNECTIONS))

    def period(self, kind: str = "") -> Period:
        """Measure the webhooks beside strangers of this kind, or alone."""
        ours, rows, log_bytes = self.ours, self._rows(), self._log_bytes()
        warm = min(WARM_SECONDS, self.scale.warm)
        stream = Stream(
            kind or "alone",
            ours.port,
            self.people,
            connections=CONNECTIONS,
            rate=RATE,
            seconds=warm + self.scale.seconds,
        )
        with self._leaning(kind) as got:
            watch = Watch(port=ours.port, pids=parts(ours)["web"], folder=self.folder)
            before = Snapshot(ours)
            self.world.after(warm, stream.begin_measuring)
            with watch.watching():
                self.world.run(stream, say=stream.name)
            after = Snapshot(ours)
        self.world.expected.clear()  # no worker runs
        answered = len(stream.answers)
        return Period(waited=stream.measured, refused=sum(stream.statuses.values()) - answered, before=before,
                      after=after, watch=watch, log_bytes=self._log_bytes() - log_bytes, got=got,
                      rows=round(self._rows() - rows - answered * self._rows_of_a_message))  # fmt: skip

    @contextlib.contextmanager
    def _leaning(self, kind: str) -> Iterator[dict[str, int]]:
        """Let strangers of this kind lean on the site. What they were answered is there after the block."""
        got: dict[str, int] = {}
        if not kind:
            yield got
            return
        known = json.dumps({**self.known, "run": next(self._runs)})
        log = self.ours.folder / "strangers.log"
        log.unlink(missing_ok=True)
        self.ours.start("strangers", f"python -m bench.crowds {kind} {shlex.quote(known)}")
        wait_until(lambda: log.read_text().startswith(LEANING), 30, f"{kind} lean on the site")
        if kind in SLOW:
            wait_until(lambda: self._settled(kind), 30, f"the web process has {self.scale.sockets} {kind}")
        yield got
        self.ours.stop("strangers")
        got.update(json.loads(log.read_text().removeprefix(LEANING)))

    def _settled(self, kind: str) -> bool:
        """Return True if the web process has their sockets, and sends nothing more to them."""
        before = sockets(self.ours.port)
        time.sleep(LOOK_SECONDS)
        after = sockets(self.ours.port)
        return after[kind] >= THERE * self.scale.sockets and after["unsent_mb"] == before["unsent_mb"]

    def _rows(self) -> int:
        tables = self.ours.query("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
                                 " AND relnamespace = 'public'::regnamespace")  # fmt: skip
        return int(self.ours.value("SELECT " + " + ".join(f"(SELECT count(*) FROM ONLY {name})" for (name,) in tables)))

    def _log_bytes(self) -> int:
        return (self.ours.folder / "web.log").stat().st_size


def guarded_path(ours: Ours) -> str:
    """The path of a channel whose requests cannot be refused before their bodies are read."""
    pairs = ("--set", "secret=whsec_c3RyYW5nZXJzIGRvIG5vdCBrbm93IHRoaXM=", "--set", "outbound_url=http://127.0.0.1:9/")
    said = ours.run("manage.py", "add_channel", "generic", "--name", "guarded", "--tenant", "default", "--bot", "echo",
                    *pairs)  # fmt: skip
    return str(json.loads(said)["webhook_path"])


def strangers(world: World, scale: Scale) -> Result:
    """Strangers lean on one web process, kind by kind, by turns with quiet; 50 signed webhooks a second beside them."""
    result = Result(name="strangers")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # One web process, as on the smallest dyno.
        ours = stack.enter_context(
            Ours("strangers", env={"WEB_CONCURRENCY": "1", "TMPDIR": folder, "SPOOL_DIR": folder})
        )
        site, kinds = Site(world, scale, ours, Path(folder)), itertools.cycle(KINDS)
        alone, beside = by_turns(scale.runs * len(KINDS), site.period, lambda: site.period(next(kinds)))
        result.faults = world.faults(unanswered=False)
    around = [statistics.mean(period.p99_ms for period in pair) for pair in itertools.pairwise(alone)]
    ratios = [period.p99_ms / p99 for period, p99 in zip(beside, around, strict=True)]
    result.tables["alone"] = row(alone)
    result.samples["alone, p99 ms"] = [period.p99_ms for period in alone]
    for place, kind in enumerate(KINDS):
        its = beside[place :: len(KINDS)]
        longer = statistics.median(ratios[place :: len(KINDS)])
        result.tables[kind] = {"p99_times": longer, **row(its)}
        result.figures[f"{kind}_p99_times"] = longer
        result.samples[f"{kind}, p99 ms"] = [period.p99_ms for period in its]
        result.faults += [f"{kind}: {words}" for words in {missing(kind, period, scale) for period in its} - {""}]
    result.figures |= totals(result.tables)
    return result


def missing(kind: str, period: Period, scale: Scale) -> str:
    """Say in words what of the strangers was not there; else nothing."""
    if kind in SLOW:
        usual = period.watch.usual(kind)
        return "" if usual >= THERE * scale.sockets else f"the web process had only {usual:g} of their sockets"
    return "" if any(status != "cut" for status in period.got) else "none of them was answered"


def totals(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        "memory_mb": max(row["memory_mb"] for row in rows.values()),
        "disk_bytes": max(row["disk_bytes"] for row in rows.values()),
        "unproven_rows": sum(rows[kind]["rows"] for kind in UNPROVEN),
        "webhooks_refused": sum(row["refused"] for row in rows.values()),
    }


def row(periods: Sequence[Period]) -> dict[str, float]:
    """What these periods came to: the sum of what stays, the mean of what is used, the most of what is held."""
    waited = [seconds for period in periods for seconds in period.waited]
    used, held = [period.used() for period in periods], [period.watch.most() for period in periods]
    return {
        "p50_ms": milliseconds(waited, 0.5),
        "p99_ms": milliseconds(waited, 0.99),
        "refused": sum(period.refused for period in periods),
        "rows": sum(period.rows for period in periods),
        **{name: statistics.mean(each[name] for each in used) for name in used[0]},
        **{name: max(each[name] for each in held) for name in held[0] if name not in SLOW},
    }
