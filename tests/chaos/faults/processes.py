"""Processes that are killed, frozen, starved, or told to stop at the wrong moment."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import resource
import signal
import struct
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.chaos.faults.base import Scene, fault, frozen, gone, send, stopped

LOCK_SECONDS = 6.0
WEB_POINTS = ("W1", "W2", "W3", "W4")
TURN_POINTS = ("T3", "T4", "T5")


def _killed(scene: Scene, role: str, what: str) -> Iterator[None]:
    pid = scene.busy(role)
    send(signal.SIGKILL, pid)
    yield
    scene.saw(f"{what} was killed", gone(pid))


fault("F1", "A worker's child is killed in the middle of its turns", bound=10, seconds=1,
      smoke=1)(functools.partial(_killed, role="handle", what="a process with lanes in hand"))  # fmt: skip
fault("sender-dies", "A sender is killed with replies in hand", bound=10, seconds=1,
      smoke=1)(functools.partial(_killed, role="send", what="a sender with replies in hand"))  # fmt: skip


@fault("sender-killed", "A sender is killed between a call and its result", bound=10, seconds=1)
def sender_killed(scene: Scene) -> Iterator[None]:
    _, pid = scene.hit(scene.host(), f"D3=kill@{scene.chance.randint(1, 5)}")
    yield
    scene.saw("the sender is dead", gone(pid))


@fault("F2", "A whole host of workers is gone for a while", bound=15, seconds=60)
def host_killed(scene: Scene) -> Iterator[None]:
    host, before = scene.host(), scene.committed()
    hit = host.kill(again=False)
    yield
    scene.saw("all its processes are gone", hit and all(map(gone, hit)))
    scene.saw("the other host handled messages meanwhile", scene.committed() > before)
    host.start()


@fault("F3", "Both hosts of workers are gone; webhooks go on", bound=15, seconds=30)
def hosts_killed(scene: Scene) -> Iterator[None]:
    hosts, before = list(scene.cluster.hosts.values()), scene.stored()
    hit = [pid for host in hosts for pid in host.kill(again=False)]
    handled = scene.committed()
    yield
    scene.saw("all their processes are gone", hit and all(map(gone, hit)))
    scene.saw("messages were stored meanwhile", scene.stored() > before)
    scene.saw("nobody handled any", scene.committed() == handled)
    with scene.redis() as client:
        most = max(int(client.llen(kind)) for kind in ("handle", "send"))
        held = sum(int(client.zcard(key)) for key in client.scan_iter("{lanes}:hints:*:*", _type="zset"))
    scene.notes |= {"tasks_waiting": most, "hints_waiting": held}
    scene.wrong(f"{most} tasks wait in a queue", most > 2)
    for host in hosts:
        host.start()


@fault("F4", "A web process is killed at each step of a webhook", bound=10, seconds=40, scaled=5)
def web_killed_at_points(scene: Scene) -> Iterator[None]:
    points = WEB_POINTS if scene.full else [scene.chance.choice(WEB_POINTS)]
    for point in points:
        _, pid = scene.hit(scene.web(), f"{point}=kill@{scene.chance.randint(3, 20)}")
        scene.saw(f"the process that came to {point} is dead", pid and scene.wait(lambda pid=pid: gone(pid)))
    yield


@fault("F5", "The master of a web process is killed with all its children", bound=10, seconds=1)
def web_killed(scene: Scene) -> Iterator[None]:
    hit = scene.web().kill()
    yield
    scene.saw("master and child are gone", len(hit) > 1 and all(map(gone, hit)))


@fault("F6", "A worker freezes for longer than its locks live, then goes on", bound=15, seconds=16, scaled=12)
def worker_frozen(scene: Scene) -> Iterator[None]:
    point = scene.chance.choice(TURN_POINTS)
    yield from _frozen_at(scene, point)
    scene.saw("it stood still for longer than a lock lives", scene.seconds > LOCK_SECONDS)


@fault("F7", "A sender freezes between a call and its result, until others took over", bound=15, seconds=16, scaled=12)
def sender_frozen(scene: Scene) -> Iterator[None]:
    yield from _frozen_at(scene, "D3")


def _frozen_at(scene: Scene, point: str) -> Iterator[None]:
    _, pid = scene.hit(scene.host(), f"{point}=stop@{scene.chance.randint(1, 5)}")
    yield
    scene.saw("it stood still", stopped(pid))
    scene.saw("it was taken for dead", scene.value("SELECT count(*) FROM worker WHERE pid = %s AND dead", pid))
    send(signal.SIGCONT, pid)


@fault("F8", "Everything of the application freezes at once, as when a machine is paused", bound=20, seconds=60,
       scaled=15)  # fmt: skip
def all_frozen(scene: Scene) -> Iterator[None]:
    pids = [pid for part in scene.cluster.parts() for pid in part.process.tree()]
    freezer = Freezer.make(scene.chance.getrandbits(32))
    with freezer.freezing(pids) if freezer else frozen(*pids):
        still = freezer.still() if freezer else stopped(*pids)
        before = cpu_seconds(pids)
        yield
        scene.saw(f"{len(pids)} processes stood still ({'freezer' if freezer else 'SIGSTOP'})", still)
        scene.saw("none of them used the processor", cpu_seconds(pids) == before)


@fault("F34", "A worker is told to stop twice, then at once, in the middle of its commits", bound=15, seconds=1)
def told_to_stop(scene: Scene) -> Iterator[None]:
    host = scene.host()
    point = scene.chance.choice(("T5", "T6"))
    # It stays at its point long enough for the signals to meet it there.
    _, pid = scene.hit(host, f"{point}=sleep:1@{scene.chance.randint(1, 5)}")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGQUIT):
        send(number, pid)
        time.sleep(0.2)
    yield
    scene.saw("the process ended", scene.wait(lambda: gone(pid), 25))


@fault("F37", "A worker's child gets no more memory", bound=30, seconds=15, allows=["parks"])
def no_memory(scene: Scene) -> Iterator[None]:
    pid = scene.busy("handle")
    process = psutil.Process(pid)
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (process.memory_info().vms, hard))
    yield
    refused = "MemoryError" in scene.cluster.logs() or "can't start new thread" in scene.cluster.logs()
    scene.saw("it was refused memory, or died", gone(pid) or refused or _at_its_limit(pid))
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))


def _at_its_limit(pid: int) -> bool:
    soft, _ = resource.prlimit(pid, resource.RLIMIT_AS)
    return soft - psutil.Process(pid).memory_info().vms < 1 << 20


@fault("F39", "A sweeper is killed at its work, then nobody sweeps for a while", bound=15, seconds=300, scaled=15)
def no_sweeper(scene: Scene) -> Iterator[None]:
    point = scene.chance.choice(("S1", "S2"))
    _, pid = scene.hit(scene.host(), f"{point}=kill")
    scene.saw("the sweeper is dead", pid and scene.wait(lambda: gone(pid)))
    scene.wait(scene.cluster.complete, 30)
    sweepers = [pid for name in scene.cluster.hosts for pid in scene.cluster.pids(name, "sweep")]
    with frozen(*sweepers):
        before = scene.committed()
        yield
        scene.saw("every sweeper stood still", stopped(*sweepers))
        scene.saw("messages were handled meanwhile", scene.committed() > before)


@fault("F41", "A worker is told to stop exactly while tasks are on their way to it", bound=15, seconds=5)
def stopped_while_woken(scene: Scene) -> Iterator[None]:
    hit = []
    for _ in range(3):
        pid = scene.busy("handle")
        send(signal.SIGTERM, pid)
        hit.append(pid)
        time.sleep(0.3)
    yield
    scene.saw("they ended", scene.wait(lambda: all(map(gone, hit)), 25))


@fault("F42", "Nobody reads what the workers write to their output", bound=10, seconds=60, scaled=15)
def output_blocked(scene: Scene) -> Iterator[None]:
    """The supervisor reads its children's pipes: it freezes, and the pipes are full."""
    supervisors = [host.process.pid for host in scene.cluster.hosts.values()]
    children = [pid for name in scene.cluster.hosts for pid in scene.cluster.pids(name)]
    with frozen(*supervisors):
        filled = [_fill(Path(f"/proc/{pid}/fd/1")) for pid in children]
        before = scene.committed()
        yield
        scene.saw("all pipes were full", filled and all(size > 0 for size in filled))
        full = [waiting(Path(f"/proc/{pid}/fd/1")) for pid in children if not gone(pid)]
        scene.saw("nobody read them", full and min(full) > 30_000)
        scene.saw("messages were handled meanwhile", scene.committed() > before)


def _fill(pipe: Path) -> int:
    """Write until nothing more fits; how much."""
    size = 0
    with open(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0) as file:
        for chunk in (b"." * 4095 + b"\n", b"\n"):
            with contextlib.suppress(BlockingIOError):
                while wrote := file.write(chunk):
                    size += wrote
    return size


def waiting(pipe: Path) -> int:
    """Bytes in a pipe that nobody has read."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0])
    finally:
        os.close(descriptor)


def cpu_seconds(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


class Freezer:
    """A cgroup whose processes stand still at once, of version 1 or 2; needs the right to make one."""

    def __init__(self, folder: Path, switch: Path, words: tuple[str, str]) -> None:
        self.folder, self.switch, (self.on, self.off) = folder, switch, words

    @classmethod
    def make(cls, number: int) -> Freezer | None:
        """None where it cannot be made: SIGSTOP to each does nearly the same."""
        root = Path("/sys/fs/cgroup")
        for base, name, words in (
            (root / "freezer", "freezer.state", ("FROZEN", "THAWED")),
            (root, "cgroup.freeze", ("1", "0")),
        ):
            folder = base / f"chaos-{number}"
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / name).exists():
                return cls(folder, folder / name, words)
            folder.rmdir()
        return None

    @contextlib.contextmanager
    def freezing(self, pids: Sequence[int]) -> Iterator[None]:
        homes = {pid: self._home(pid) for pid in pids}
        try:
            for pid in pids:
                self._move(pid, self.folder)
            self.switch.write_text(self.on)
            yield
        finally:
            self.switch.write_text(self.off)
            for pid, home in homes.items():
                self._move(pid, home)
            with contextlib.suppress(OSError):  # children that were started meanwhile are in it
                self.folder.rmdir()

    def still(self) -> bool:
        if self.on == "1":
            return "frozen 1" in (self.folder / "cgroup.events").read_text()
        for _ in range(50):
            if self.switch.read_text().strip() == self.on:
                return True
            time.sleep(0.02)
        return False

    def _home(self, pid: int) -> Path:
        """The cgroup of this hierarchy in which it is now."""
        wanted = "freezer" if self.on == "FROZEN" else ""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == wanted:
                return self.folder.parent / path.lstrip("/")
        return self.folder.parent

    @staticmethod
    def _move(pid: int, folder: Path) -> None:
        try:
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
