"""What is being hurt: the whole installation as processes, with a handle on each part.

    with Cluster(links={"web-pg", "app-redis"}) as cluster:
        cluster.hosts["A"].kill()                # it is back 0.5 to 1 s later, as a dyno manager does it
        cluster.hosts["A"].kill(again=False)     # it stays away until .start()
        cluster.postgres.stop("immediate"); cluster.postgres.start()
        cluster.links["web-pg"]                  # a tests.chaos.proxy.Link

Two web processes, hosts "A" and "B" (each one supervised ``run_worker`` with handle, send and sweep children),
Postgres, Valkey, the fake platform. Names of links: ``web-pg``, ``A-pg``, ``B-pg``, ``app-redis``,
``sender-platform``, ``generator-web-0``, ``generator-web-1``. One that is not asked for is a direct connection.
"""

from __future__ import annotations

import base64
import contextlib
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil
import psycopg
import redis

from botproject.local.servers import Servers, private_servers
from tests.chaos.platform import Platform
from tests.chaos.proxy import Link, at
from tests.kit.stack import ROOT, Process, Stack, free_port, wait_until

LINKS = ("web-pg", "A-pg", "B-pg", "app-redis", "sender-platform", "generator-web-0", "generator-web-1")
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
    "SECRET_KEY": "canary-secret-key-" + secrets.token_hex(24),
    "CREDENTIALS_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
}
POSTGRES = {"track_commit_timestamp": "on"}
START_SECONDS = 60


class Part:
    """A process that is started again when it dies, except while a fault says otherwise."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.name = process.name
        self.away = False  # a fault keeps it away
        self.starts = 0
        self.armed = False  # it runs with failpoints

    def start(self) -> None:
        self.away = False
        self.armed = bool(self.process.env.get("FAILPOINTS"))
        self.process.start()
        self.starts += 1

    def kill(self, *, again: bool = True) -> list[int]:
        """SIGKILL to all of it, the parent first; the pids that it hit."""
        self.away = not again
        return self.process.signal(signal.SIGKILL)

    def stop(self) -> list[int]:
        """SIGSTOP to all of it, until ``cont``."""
        return self.process.signal(signal.SIGSTOP)

    def cont(self) -> list[int]:
        return self.process.signal(signal.SIGCONT)

    def alive(self) -> bool:
        return self.process.alive()

    def failpoints(self, words: str) -> None:
        """FAILPOINTS for its next start."""
        self.process.env["FAILPOINTS"] = words


class Database:
    """The one Postgres."""

    def __init__(self, servers: Servers) -> None:
        assert servers.postgres is not None
        self.server = servers.postgres

    def stop(self, how: str = "fast") -> None:
        """``immediate``: as a crash, with recovery at the next start; ``fast``: ends sessions, then a checkpoint."""
        if how == "immediate":
            self.server.stop_immediately()
        else:
            self.server.stop()

    def start(self) -> None:
        self.server.start()

    def pause(self) -> None:
        """SIGSTOP to all its processes, until ``resume``."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.server.pid is not None
        root = psutil.Process(self.server.pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    @property
    def port(self) -> int:
        return self.server.port


class Cache:
    """The one Valkey."""

    def __init__(self, servers: Servers) -> None:
        assert servers.valkey is not None
        self.server = servers.valkey

    def kill(self) -> None:
        self.server.kill()

    def stop(self) -> None:
        self.server.stop()

    def start(self, *, empty: bool = False) -> None:
        """``empty``: without what it had written."""
        if empty:
            for path in sorted(self.server.data.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        self.server.start()

    def client(self) -> redis.Redis:
        """Direct, past every link."""
        return redis.Redis.from_url(self.server.url, socket_timeout=5, decode_responses=True)

    @property
    def port(self) -> int:
        return self.server.port


class Cluster(Stack):
    """The parts by name: ``web`` (a list), ``hosts``, ``postgres``, ``redis``, ``platform``, ``links``."""

    def __init__(
        self,
        *,
        links: Collection[str] = (),
        env: Mapping[str, str] | None = None,
        chance: random.Random | None = None,
        failpoints: Mapping[str, str] | None = None,
        hosts: Collection[str] = ("A", "B"),
        roles: str = "handle,send,sweep",
        webs: int = 2,
        code: Path = ROOT,
    ) -> None:
        super().__init__(roles=roles, webs=webs, env={**ENVIRONMENT, **(env or {})}, forks=False)
        self.code = code
        unknown = set(links) - set(LINKS)
        assert not unknown, f"no such link: {unknown}"
        self._wanted, self._chance = set(links), chance or random.Random(0)
        self._failpoints, self._host_names = dict(failpoints or {}), tuple(hosts)
        self.links: dict[str, Link] = {}
        self.web: list[Part] = []
        self.hosts: dict[str, Part] = {}
        self._closing = threading.Event()

    # ------------------------------------------------------------ starting

    def _start(self) -> None:
        self._prepare()
        self.servers = self._stack.enter_context(private_servers(POSTGRES))
        self.postgres, self.redis = Database(self.servers), Cache(self.servers)
        self.platform = self._stack.enter_context(Platform(self.folder, self._chance.getrandbits(32)))
        self.inner_ports = [free_port() for _ in range(self._webs)]
        self.ports = [self._through(f"generator-web-{n}", port) for n, port in enumerate(self.inner_ports)]
        self.env = self._environment()
        self.platform_url = f"http://127.0.0.1:{self._through('sender-platform', self.platform.port)}"
        self.manage("migrate", "--noinput")
        self.begin()

    def begin(self) -> None:
        """Start the processes, then keep them alive."""
        for number, port in enumerate(self.inner_ports):
            name = f"web-{number}"
            self.web.append(Part(self.web_process(name, port, self._env_of(name))))
        for name in self._host_names:
            self.hosts[name] = Part(self.worker(name, self._roles, self._env_of(name)))
        for part in self.parts():
            part.start()
        threading.Thread(target=self._keep_alive, name="keep-alive", daemon=True).start()
        for port in self.inner_ports:
            wait_until(lambda port=port: self.healthy(port), START_SECONDS, "the web process answers")
        wait_until(self.complete, START_SECONDS, "every worker's row")

    def complete(self) -> bool:
        """Every child of every host has its row, alive."""
        roles = self._roles.split(",")
        alive = {pid for role in roles for pid in Stack.pids(self, role)}
        return all(set(self.pids(host, role)) & alive for host in self.hosts for role in roles)

    def _env_of(self, name: str) -> dict[str, str]:
        link = "web-pg" if name.startswith("web") else f"{name}-pg"
        database = at(self.servers.database_url, self._through(link, self.postgres.port))
        broker = at(self.servers.redis_url, self._through("app-redis", self.redis.port))
        return {"DATABASE_URL": database, "REDIS_URL": broker, "FAILPOINTS": self._failpoints.get(name, "")}

    def _through(self, name: str, port: int) -> int:
        """The port to use for a connection: the link's where it was asked for."""
        if name not in self._wanted:
            return port
        if name not in self.links:
            self.links[name] = Link("127.0.0.1", port)
            self._stack.callback(self.links[name].close)
        return self.links[name].port

    def _keep_alive(self) -> None:
        """As a dyno manager: what died is started again 0.5 to 1 s later."""
        due: dict[str, float] = {}
        while not self._closing.wait(0.05):
            for part in self.parts():
                if part.away or part.alive():
                    due.pop(part.name, None)
                elif time.monotonic() >= due.setdefault(part.name, time.monotonic() + self._chance.uniform(0.5, 1.0)):
                    part.start()

    def __exit__(self, kind: object, *rest: object) -> None:
        self._closing.set()
        for part in self.parts():
            part.away = True
            part.process.end()
        super().__exit__(kind, *rest)

    # ------------------------------------------------------------ parts

    def parts(self) -> list[Part]:
        return [*self.web, *self.hosts.values()]

    def pids(self, host: str, role: str = "") -> list[int]:
        """The children of a host, of one role or of all; ``web-0`` and ``web-1`` are hosts here, too."""
        part = self.web[int(host[4:])] if host.startswith("web-") else self.hosts[host]
        return part.process.children(role if part.name in self.hosts else "")

    # ------------------------------------------------------------ looking inside

    def drained(self) -> bool:
        """Nothing to handle, nothing to deliver; False also while Postgres is away."""
        try:
            return super().drained()
        except psycopg.OperationalError:
            return False


assert sys.platform == "linux", "processes are found and stopped through /proc"
