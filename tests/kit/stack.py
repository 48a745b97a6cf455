"""The real thing for tests: web, workers, sender, sweeper as processes on servers of their own, and ways to hurt them.

with Stack() as stack:
    channel = stack.add_channel("telegram", bot="echo", token="1:a", api_base=double.url)
    stack.post(channel, body, headers)
    stack.kill("handle")
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
import urllib3

from botproject.local.__main__ import procfile
from botproject.local.servers import private_servers
from tests.kit import forked, templates

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 25


@dataclass(frozen=True, kw_only=True)
class Channel:
    """What ``add_channel`` printed, with the secrets that it was given."""

    id: int
    public_id: str
    webhook_path: str
    platform: str
    secrets: Mapping[str, str] = field(default_factory=dict)


class Process:
    """One process with all that it starts: begun, hurt, begun again. It leads a process group of its own.

    ``forks``: it and its workers are forked from a process that has imported their packages.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str],
        log: Path,
        code: Path = ROOT,
        *,
        forks: bool = False,
    ) -> None:
        self.name, self.command, self.env, self.log, self.code = name, command, dict(env), log, code
        self._forks = forks
        self._popen: subprocess.Popen[bytes] | forked.ForkedProcess | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            if self._forks:
                self._popen = forked.server().start(self.command, self.env, stdout=log)
                return
            self._popen = subprocess.Popen(
                self.command, cwd=self.code, env=self.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def wait(self, seconds: float | None = None) -> int:
        assert self._popen is not None
        return self._popen.wait(seconds)

    def tree(self) -> list[int]:
        """Its pid and those of all that it started, parents first."""
        if not self.alive():
            return []
        try:
            root = psutil.Process(self.pid)
            return [root.pid, *(child.pid for child in root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def lasting(self) -> dict[int, str]:
        """Those that nothing but harm ends, and what they are; a trial's fork ends with its turn."""
        found: dict[int, str] = {}
        for pid in self.tree():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                parent = process.parent()
                if "run_turns" not in (parent.cmdline() if parent else ()):
                    kind = "run_turns" if "run_turns" in process.cmdline() else process.environ().get("WORKER_ROLE", "")
                    found[pid] = f"{self.name} {kind}".strip()
        return found

    def children(self, role: str = "") -> list[int]:
        """What it started itself; of a worker those of one role (handle, send, sweep)."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children() if self.alive() else []:
                with contextlib.suppress(psutil.Error):
                    if not role or child.environ().get("WORKER_ROLE") == role:
                        found.append(child.pid)
        return found

    def signal(self, number: int) -> list[int]:
        """To all of it; the pids that it reached."""
        reached = []
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                reached.append(pid)
        return reached

    def lose_power(self) -> None:
        """End a supervisor at once, which takes its processes with it; return when they have ended, too."""
        children = self.children()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        wait_until(lambda: all(state(pid) in ("", "Z") for pid in children), 10, "its processes have ended")

    def end(self) -> None:
        """At once, with all that it started."""
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()


class Stack:
    """Servers and processes, gone afterwards. ``roles``: the workers to start at once.

    ``forks``: its processes are forks of one that has imported their packages; without, they begin as in production.
    """

    code = ROOT  # the version that runs

    def __init__(
        self,
        *,
        roles: str = "handle,send,sweep",
        webs: int = 1,
        env: Mapping[str, str] | None = None,
        forks: bool = True,
    ) -> None:
        self._roles, self._webs, self._extra, self._forks = roles, webs, dict(env or {}), forks
        self._stack = contextlib.ExitStack()
        self._manager: tuple[Mapping[str, str], forked.ForkServer] | None = None
        self._idle: list[psycopg.Connection[Any]] = []
        self._workers: list[Process] = []
        self.http = urllib3.PoolManager(maxsize=64, retries=False, timeout=urllib3.Timeout(connect=3, read=15))
        self.ports: list[int] = []

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _prepare(self) -> None:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stack-")))

    def _start(self) -> None:
        self._prepare()
        self.servers = self._stack.enter_context(private_servers(template=self._template()))
        self.ports = [free_port() for _ in range(self._webs)]
        self.env = self._environment()
        self._migrate()
        for port in self.ports:
            self._start_web(port)
        if self._roles:
            self.start_workers(self._roles)
        for port in self.ports:
            wait_until(lambda port=port: self.healthy(port), 30, "the web process answers")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None and hasattr(self, "folder"):
            keep = Path(os.environ.get("DATA_DIR", self.folder)) / "stack.log"
            keep.write_text(self.logs())
            print(f"the processes' logs are in {keep}")
        for process in self._workers:
            process.end()
        if self._manager:
            self._manager[1].close()
        for connection in self._idle:
            connection.close()
        self._stack.close()

    def _template(self) -> Path | None:
        """Servers to copy, whose tables are those of the sample project."""
        return templates.migrated() if self._forks and "DJANGO_SETTINGS_MODULE" not in self._extra else None

    def _migrate(self) -> None:
        if self._template():
            self.query("UPDATE installation SET public_url = %s", self.env["PUBLIC_URL"])
        else:
            self.manage("migrate", "--noinput")

    def _environment(self) -> dict[str, str]:
        base = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        return {**base, "DJANGO_SETTINGS_MODULE": "botproject.settings", "DATABASE_URL": self.servers.database_url,
                "REDIS_URL": self.servers.redis_url, "PUBLIC_URL": f"http://127.0.0.1:{self.ports[0]}",
                "DATA_DIR": str(self.folder), "LOCAL": "1", "ALLOW_PRIVATE_OUTBOUND": "1", "PYTHONPATH": str(self.code),
                **self._extra}  # fmt: skip

    # ------------------------------------------------------------ processes

    def start_workers(self, roles: str = "handle,send,sweep", env: Mapping[str, str] | None = None) -> Process:
        """A worker with its roles, as a dyno would run it; it dies with this process."""
        return self._begin(self.worker(f"worker-{len(self._workers)}", roles, env))

    def _start_web(self, port: int) -> None:
        self._begin(self.web_process(f"web-{port}", port))

    def _begin(self, process: Process) -> Process:
        process.start()
        self._workers.append(process)
        return process

    def worker(self, name: str, roles: str, env: Mapping[str, str] | None = None) -> Process:
        command = [sys.executable, "manage.py", "run_worker", "--roles", roles]
        return self._process(name, command, env or {})

    def web_process(self, name: str, port: int, env: Mapping[str, str] | None = None) -> Process:
        line = f"exec {shlex.quote(sys.executable)} {procfile()['web'].removeprefix('python ')}"
        here = {"BIND": "127.0.0.1", "PORT": str(port)}
        return self._process(name, ["/bin/sh", "-c", line], {**here, **(env or {})})

    def _process(self, name: str, command: list[str], env: Mapping[str, str]) -> Process:
        log = self.folder / f"{name}.log"
        return Process(name, command, {**self.env, **env}, log, self.code, forks=self._forks)

    def pids(self, role: str) -> list[int]:
        """Processes of a role (handle, send, sweep) that are alive now, from their Worker rows."""
        rows = self.query("SELECT pid FROM worker WHERE kind = %s AND NOT dead ORDER BY started_at", role)
        return [pid for (pid,) in rows if state(pid) not in ("", "Z")]

    def kill(self, role: str, sig: int = signal.SIGKILL) -> list[int]:
        """Send ``sig`` to every process of a role; the pids that it hit."""
        hit = self.pids(role)
        for pid in hit:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        return hit

    def wait_for_workers(self, *roles: str, seconds: float = 20) -> None:
        for role in roles:
            wait_until(lambda role=role: bool(self.pids(role)), seconds, f"a {role} process")

    # ------------------------------------------------------------ commands

    def manage(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        command = [sys.executable, "manage.py", *arguments]
        if self._forks:
            done = self._django().run(command, self.env, text)
        else:
            done = subprocess.run(command, cwd=self.code, env=self.env, capture_output=True, text=True, input=text)
        if check and done.returncode:
            raise AssertionError(f"manage.py {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _django(self) -> forked.ForkServer:
        """A process that has set up Django with this environment."""
        if self._manager and self._manager[0] != self.env:
            self._manager[1].close()
            self._manager = None
        if not self._manager:
            self._manager = (dict(self.env), forked.server().prepared(self.env, self.folder / "manage.log"))
        return self._manager[1]

    def add_channel(self, platform: str, *, bot: str = "echo", api_base: str = "", **values: str) -> Channel:
        arguments = ["add_channel", platform, "--name", f"{platform}-{secrets.token_hex(3)}", "--bot", bot]
        for name, value in values.items():
            arguments += ["--set", f"{name}={value}"]
        if api_base:
            arguments += ["--api-base", api_base]
        made = json.loads(self.manage(*arguments))
        return Channel(platform=platform, secrets=values, **made)

    def add_channels(self, wanted: Mapping[str, tuple[str, list[str], dict[str, str]]]) -> dict[str, Channel]:
        """Several by one process: name -> platform, options of the command, values. By name."""
        commands = []
        for name, (platform, words, values) in wanted.items():
            sets = [word for value in values.items() for word in ("--set", "=".join(value))]
            commands.append(["add_channel", platform, "--name", name, *words, *sets])
        calls = [f"call_command(*{command!r})" for command in commands]
        code = "\n".join(["from django.core.management import call_command", *calls])
        lines = [line for line in self.manage("shell", "--no-imports", "-c", code).splitlines() if line.startswith("{")]
        return {
            name: Channel(platform=platform, secrets=values, **json.loads(line))
            for line, (name, (platform, _, values)) in zip(lines, wanted.items(), strict=True)
        }

    # ------------------------------------------------------------ talking to it

    def post(self, channel: Channel, body: bytes, headers: Mapping[str, str], web: int = 0) -> int:
        """One webhook; its status, or 0 when no answer came."""
        url = f"http://127.0.0.1:{self.ports[web]}{channel.webhook_path}"
        try:
            return self.http.request("POST", url, body=body, headers=dict(headers)).status
        except urllib3.exceptions.HTTPError:
            return 0

    def healthy(self, port: int) -> bool:
        try:
            return self.http.request("GET", f"http://127.0.0.1:{port}/healthz/").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    # ------------------------------------------------------------ looking inside

    def query(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        return self.ask(sql, params)

    def ask(self, sql: str, params: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """On a connection that is kept: to open one costs more than most statements."""
        connection = self._connection()
        try:
            cursor = connection.execute(sql, params)
            return cursor.fetchall() if cursor.description else []
        finally:
            self._idle.append(connection)  # also one that failed: it is looked at before it is used again

    def _connection(self) -> psycopg.Connection[Any]:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not connection.closed and not was_told(connection):
                    return connection
                connection.close()
        return psycopg.connect(self.servers.database_url, autocommit=True, prepare_threshold=None)

    def value(self, sql: str, *params: Any) -> Any:
        return self.query(sql, *params)[0][0]

    def flush_redis(self) -> None:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.servers.redis_url) as client:
            client.flushall()

    def drained(self) -> bool:
        """Nothing pending, nothing to deliver."""
        return (
            self.value(
                "SELECT count(*) FROM conversation WHERE next_sequence <= last_sequence OR wait_until IS NOT NULL"
            )
            == 0
            and self.value(
                """SELECT count(*) FROM reply
                    WHERE status IN ('pending', 'sending') OR status = 'unknown' AND not_before IS NOT NULL"""
            )
            == 0
        )

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


SLACK = 3  # waits are for what never comes; how soon it comes is measured elsewhere (`make chaos`, `make bench`)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll ``condition``; fails with ``what`` when ``seconds`` and as much slack as a busy machine needs are over."""
    seconds *= SLACK
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[list[float]]:
    """Do ``act`` every ``seconds`` in a thread, until the block ends; the times at which it was done."""
    stop = threading.Event()
    done: list[float] = []

    def loop() -> None:
        while not stop.wait(seconds):
            act()
            done.append(time.monotonic())

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def was_told(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server said something to a connection that waits, as it does when it ends it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def state(pid: int) -> str:
    """R, S, T (stopped), Z; '' when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
