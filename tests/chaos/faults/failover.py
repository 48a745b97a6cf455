"""A standby takes over from a Postgres that is lost. Without synchronous replication its last commits are lost, too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg

from botproject.local.places import give_to
from botproject.local.postgres import Postgres, as_user, clean_environment
from tests.chaos.faults.base import Scene, fault
from tests.chaos.faults.network import TO_POSTGRES
from tests.kit.stack import free_port

LAG_SECONDS = 1.0
READY_SECONDS = 60


@fault("F44", "A standby without the last second takes over", bound=30, seconds=1, links=TO_POSTGRES, alone=True,
       limit=True)  # fmt: skip
def failover(scene: Scene) -> Iterator[None]:
    """The limit: what was answered 2xx in that second is lost, unless a platform sends it again."""
    yield from _fail_over(scene, synchronous=False)


@fault("F44-sync", "A synchronous standby takes over", bound=30, seconds=1, links=TO_POSTGRES, alone=True)
def synchronous_failover(scene: Scene) -> Iterator[None]:
    """With ``synchronous_standby_names`` nothing that was answered 2xx is lost."""
    yield from _fail_over(scene, synchronous=True)


def _fail_over(scene: Scene, *, synchronous: bool) -> Iterator[None]:
    primary = scene.cluster.postgres.server
    standby = Standby(primary, scene.cluster.folder / "standby")
    scene.cluster._stack.callback(standby.stop)
    standby.build()
    scene.saw("a standby follows", scene.wait(lambda: scene.value("SELECT count(*) FROM pg_stat_replication"), 20))
    if synchronous:
        scene.cluster.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        scene.cluster.query("SELECT pg_reload_conf()")
        state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        scene.saw("and is synchronous", scene.wait(lambda: scene.value(state)))
    yield
    standby.fall_behind()
    time.sleep(LAG_SECONDS)
    stored = scene.stored()
    scene.healed = time.monotonic_ns()
    primary.kill()
    standby.promote()
    scene.cluster.servers.database_url = standby.url
    for name in TO_POSTGRES:
        link = scene.link(name)
        link.target = ("127.0.0.1", standby.port)
        link.reset()
    kept = scene.stored()
    scene.notes.update(stored_before=stored, kept=kept)
    scene.saw("the standby took over", not scene.value("SELECT pg_is_in_recovery()"))
    lost = list(_lost(scene))
    scene.notes["answered_2xx_and_lost"] = len(lost)
    scene.wrong(f"{len(lost)} messages that were answered 2xx are lost", synchronous and lost)


def _lost(scene: Scene) -> Iterator[str]:
    """Texts that were answered 2xx before the failover and are not there now."""
    history = scene.generator.history
    texts = {(event["ch"], event["u"], event["m"]): event["text"] for event in history.of("message")}
    there = {text for (text,) in scene.cluster.query("SELECT text FROM message")}
    for event in history.of("webhook"):
        if event["k"] == "ok" and event["t"] < scene.healed:
            text = texts.get((event["ch"], event["u"], event["m"]), "")
            if text.replace("\0", "\ufffd") not in there:
                yield text


class Standby:
    """A copy of a Postgres of ours that follows it."""

    def __init__(self, primary: Postgres, folder: Path) -> None:
        self.primary, self.folder, self.port = primary, folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.primary.url.replace(f":{self.primary.port}/", f":{self.port}/")

    def build(self) -> None:
        """Beside the primary's data: its user may enter there."""
        data = self.data
        data.mkdir(mode=0o700)
        give_to(self.primary._user, data)
        command = [str(self.primary._program("pg_basebackup")), "--pgdata", str(data), "--host", "127.0.0.1", "--port",
                   str(self.primary.port), "--username", "postgres", "--wal-method", "stream", "--checkpoint", "fast",
                   "--write-recovery-conf"]  # fmt: skip
        done = subprocess.run(command, cwd="/", capture_output=True, text=True,
                              env={**clean_environment(), "PGPASSWORD": self.primary.password},
                              **as_user(self.primary._user))  # fmt: skip
        assert done.returncode == 0, f"pg_basebackup: {done.stderr}"
        options = [f"-c{name}={value}" for name, value in self.primary._settings.items()]
        with (self.primary.room / "standby.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.primary._program("postgres"), "-D", data, f"-cport={self.port}", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=clean_environment(),
                start_new_session=True, **as_user(self.primary._user))  # fmt: skip
        end = time.monotonic() + READY_SECONDS
        while not self._answers():
            assert time.monotonic() < end, "the standby does not answer"
            time.sleep(0.1)

    @property
    def data(self) -> Path:
        return self.primary.data.with_name("standby")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=3).close()
        except psycopg.OperationalError:
            return False
        return True

    def fall_behind(self) -> None:
        """What takes the primary's log stands still from now on."""
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children():
            if "walreceiver" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGSTOP)
                self._receiver = child
                return
        raise AssertionError("the standby has no walreceiver")

    def promote(self) -> None:
        self._receiver.send_signal(signal.SIGKILL)
        self._receiver.wait(5)
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            try:
                with psycopg.connect(self.url, connect_timeout=3, autocommit=True) as connection:
                    row = connection.execute("SELECT NOT pg_is_in_recovery() OR pg_promote(true, 30)").fetchone()
                if row is not None and row[0]:
                    return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise AssertionError("the standby was not promoted")

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
