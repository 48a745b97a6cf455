"""Postgres gone, crashed, frozen, full, locked, without a free connection."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.chaos.faults.base import Scene, fault, no_private_mounts, send

REFUSING_SECONDS = 3.0  # until a webhook hears that it cannot be stored
STALL_SECONDS = 1.0  # of a busy machine, on top


def _away(scene: Scene, how: str) -> Iterator[None]:
    """No message is taken meanwhile, and whoever brings one is told within three seconds."""
    before = _processes(scene)
    scene.cluster.postgres.stop(how)
    scene.began = time.monotonic_ns()
    yield
    scene.healed = time.monotonic_ns()
    scene.cluster.postgres.start()
    answers = _refused(scene, scene.healed)
    scene.wrong("a webhook was answered 2xx without a database", any(200 <= status < 300 for status in answers))
    after = _processes(scene)
    ended = [what for pid, what in before.items() if pid not in after]
    scene.wrong(f"a process had to be started again: {ended}", ended)


fault("F9", "Postgres crashes", bound=20, seconds=5, smoke=5)(functools.partial(_away, how="immediate"))
fault("F11", "Postgres is down for minutes", bound=20, seconds=300)(functools.partial(_away, how="fast"))


def _refused(scene: Scene, until: int) -> list[int]:
    """Webhooks came meanwhile, and whoever brought one was told in time that it is not taken; how each was answered."""
    answers = list(scene.attempts(until - int(ANSWERED_NS)))
    scene.saw("webhooks came meanwhile, and were refused", any(status == 503 for status, *_ in answers))
    slowest = max((seconds for _, seconds, _ in answers), default=0.0)
    scene.notes["slowest_refusal_seconds"] = round(slowest, 2)
    scene.wrong(f"a refusal took {slowest:.1f} s", slowest > REFUSING_SECONDS + STALL_SECONDS)
    return [status for status, *_ in answers]


def _processes(scene: Scene) -> dict[int, str]:
    return {pid: what for part in scene.cluster.parts() for pid, what in part.process.lasting().items()}


ANSWERED_NS = (REFUSING_SECONDS + STALL_SECONDS) * 1e9  # begun later, an answer can come after the heal


@fault("F10", "Postgres is restarted; later a backend is killed, which ends all sessions", bound=20, seconds=5)
def restart(scene: Scene) -> Iterator[None]:
    began = scene.value("SELECT pg_postmaster_start_time()")
    scene.cluster.postgres.stop()
    scene.cluster.postgres.start()
    scene.saw("it was started again", scene.value("SELECT pg_postmaster_start_time()") > began)
    yield
    wanted = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'handle%%'"
    assert scene.wait(lambda: scene.value(wanted)), "no worker is connected again"
    pid = scene.value("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'handle%%' LIMIT 1")
    ours = psycopg.connect(scene.cluster.servers.database_url, autocommit=True)
    send(signal.SIGKILL, pid)
    with contextlib.closing(ours):
        scene.saw("a killed backend ended all sessions", scene.wait(lambda: _ended(ours)))


def _ended(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


@fault("pg-frozen", "Postgres stands still: it accepts and never answers", bound=20, seconds=30, scaled=12)
def stands_still(scene: Scene) -> Iterator[None]:
    scene.cluster.postgres.pause()
    scene.began = time.monotonic_ns()
    yield
    scene.healed = time.monotonic_ns()
    scene.cluster.postgres.resume()
    _refused(scene, scene.healed)


# ---------------------------------------------------------------- full


@fault("F12", "The disk of Postgres is full", bound=60, seconds=20, needs=no_private_mounts, alone=True)
def disk_full(scene: Scene) -> Iterator[None]:
    with SmallDisk(scene) as disk:
        before = scene.stored()
        disk.fill()
        refused = scene.wait(disk.refuses, 15)
        yield
        scene.saw("Postgres found its disk full", refused)
        scene.notes["stored_before"] = before
        disk.empty()
        if not scene.cluster.postgres.server.alive():
            disk.start()
        scene.saw("it writes again", scene.wait(lambda: not disk.refuses(), 20))


class SmallDisk:
    """Postgres's data on a tmpfs that only it and one thread of ours can see; gone with them, whatever happens."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.server = scene, scene.cluster.postgres.server
        self.copy = self.server.data.with_suffix(".kept")
        self._inside = ThreadPoolExecutor(1)  # mounts belong to a thread, and to what it starts

    def __enter__(self) -> SmallDisk:
        self.server.stop()
        self._inside.submit(self._mount).result()
        return self

    def _mount(self) -> None:
        alone = ctypes.CDLL(None, use_errno=True).unshare(0x00020000)  # CLONE_NEWNS
        assert alone == 0, f"unshare: {ctypes.get_errno()}"
        data, copy = str(self.server.data), str(self.copy)
        run("mount", "--make-rprivate", "/")
        run("cp", "-a", data, copy)
        size = int(subprocess.check_output(["du", "-sm", data]).split()[0]) + 96
        run("mount", "-t", "tmpfs", "-o", f"size={size}m,mode=700", "none", data)
        run("cp", "-a", f"{copy}/.", data)
        owner = self.copy.stat()
        run("chown", f"{owner.st_uid}:{owner.st_gid}", data)
        self.server.start()

    def start(self) -> None:
        self._inside.submit(self.server.start).result()

    def fill(self) -> None:
        def write() -> None:
            with contextlib.suppress(OSError), (self.server.data / "filler").open("wb", buffering=0) as file:
                while file.write(b"\0" * 65536):
                    pass

        self._inside.submit(write).result()

    def empty(self) -> None:
        self._inside.submit((self.server.data / "filler").unlink).result()

    def refuses(self) -> bool:
        """A table that grows is refused, or nobody answers."""
        try:
            with psycopg.connect(self.scene.cluster.servers.database_url, autocommit=True) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS chaos_filler (t text)")
                connection.execute("INSERT INTO chaos_filler SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
                connection.execute("DROP TABLE chaos_filler")
        except psycopg.Error:
            return True
        return False

    def __exit__(self, *_: object) -> None:
        """Back to the disk from before, with what was written since."""
        self.server.stop()
        fresh = self.copy.with_suffix(".fresh")
        self._inside.submit(run, "cp", "-a", str(self.server.data), str(fresh)).result()
        self._inside.shutdown()
        shutil.rmtree(self.copy)
        shutil.rmtree(self.server.data)
        (fresh / "filler").unlink(missing_ok=True)
        fresh.rename(self.server.data)
        self.server.start()


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


# ---------------------------------------------------------------- crowded, locked


@fault("F13", "Postgres has no connection free, and ours are ended", bound=20, seconds=20)
def no_connections(scene: Scene) -> Iterator[None]:
    with Crowd(scene) as crowd:
        crowd.take_all()
        ended = sum(crowd.end_ours() for _ in range(5))  # who is quick gets a place again
        scene.began = time.monotonic_ns()
        yield
        scene.saw(f"{ended} connections of ours were ended", ended)
        scene.saw(f"{len(crowd.connections)} strangers hold all connections", crowd.refused)
        answers = list(scene.attempts(time.monotonic_ns() - int(ANSWERED_NS)))
        scene.saw("webhooks were refused", any(status == 503 for status, *_ in answers))


END_OURS = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND application_name <> 'crowd'"""


class Crowd:
    """Connections of strangers, who take every place that gets free."""

    def __init__(self, scene: Scene) -> None:
        self.url = scene.cluster.servers.database_url
        self.connections: list[psycopg.Connection] = []
        self.refused = 0

    def __enter__(self) -> Crowd:
        return self

    def take_all(self) -> None:
        try:
            while True:
                self.connections.append(psycopg.connect(self.url, autocommit=True, application_name="crowd"))
        except psycopg.OperationalError:
            self.refused += 1

    def end_ours(self) -> int:
        (ended,) = self.connections[0].execute(END_OURS).fetchone() or (0,)
        self.take_all()
        return int(ended)

    def __exit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.close()


@fault("F14", "A table that webhooks write is locked, as by a bad migration", bound=20, seconds=60, scaled=10)
def table_locked(scene: Scene) -> Iterator[None]:
    with psycopg.connect(scene.cluster.servers.database_url) as locking:
        locking.execute("LOCK TABLE message")
        scene.began = time.monotonic_ns()
        yield
        waiting = locking.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        answers = _refused(scene, time.monotonic_ns())
        scene.wrong("a webhook was answered 2xx without being stored", any(200 <= status < 300 for status in answers))
        scene.notes["waiting"] = waiting and waiting[0]
        locking.rollback()
