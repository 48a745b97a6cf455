"""The measured systems: servers and processes in a folder of their own, started with the Procfile's commands.

with Ours(webs=2) as ours:
    channel = ours.add_channel(api=world.api)
    ours.start_workers()
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg

from bench.world import People, StreamFailed
from botproject.local.__main__ import CHECKOUT, answers, end_leftovers, procfile
from botproject.local.environment import data_directory, environment_of
from botproject.local.places import make_folder, remove_room
from botproject.local.processes import RUN_MARK, free_port
from botproject.local.servers import Servers, local_servers

FOLDER = data_directory() / "bench"
SETTINGS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.max": "1000"}
LIMITS = "channel:100000/1s,chat:100000/1s,group:100000/1s"  # the limiter runs, and lets everything through
WEBS = 2  # web processes, for every system alike
SECRET = "bench-secret-0123456789"
PENDING = """
SELECT (SELECT coalesce(sum(last_sequence - next_sequence + 1), 0) FROM conversation WHERE due_at IS NOT NULL)
     + (SELECT count(*) FROM conversation WHERE send_due_at IS NOT NULL)"""


class System:
    """Servers and the processes that use them; all are stopped afterwards.

    ``keep``: keep the data for the next run. ``checkout``: where the measured code is.
    """

    def __init__(
        self, name: str, *, keep: bool = False, env: Mapping[str, str] | None = None, checkout: Path = CHECKOUT
    ) -> None:
        self.folder, self.checkout = FOLDER / name, checkout
        self._keep, self._extra = keep, dict(env or {})
        self._stack = contextlib.ExitStack()
        self._connection: psycopg.Connection[Any] | None = None
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()

    def __enter__(self) -> Self:
        try:
            if not self._keep:
                self.forget()
            make_folder(FOLDER)
            make_folder(self.folder)
            self.servers: Servers = self._stack.enter_context(local_servers(self.folder, settings=SETTINGS))
            end_leftovers(self.folder)
            self.env = self.environment()
            self.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            self.prepare()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        for name in list(self.running):
            self.stop(name)
        self._stack.close()
        if not self._keep and kind is None:
            self.forget()

    def prepare(self) -> None:
        """Create the tables and start the first processes."""

    def forget(self) -> None:
        for name in ("postgres", "valkey"):
            remove_room(self.folder / name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        chosen = environment_of(self.folder, self.servers, self.port)
        mine = {"DATA_DIR": str(self.folder), "PORT": str(self.port), "BIND": "127.0.0.1", "LOG_FORMAT": "json",
                "WEB_CONCURRENCY": str(WEBS), "PYTHONPATH": str(self.checkout), RUN_MARK: str(self.folder),
                "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"}  # fmt: skip
        return {**os.environ, **chosen, **mine, **self._extra}

    # ------------------------------------------------------------ processes

    def start(self, name: str, command: str, env: Mapping[str, str] | None = None) -> None:
        """Start a shell command line in a session of its own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                cwd=self.checkout,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_for_web(self) -> None:
        """Wait until the server at our port answers anything."""
        wait_until(lambda: speaks_http(self.port), 30, "a web process answers")

    def stop(self, name: str, seconds: float = 20.0) -> None:
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=self.checkout, env=self.env, capture_output=True, text=True
        )
        if done.returncode:
            raise StreamFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace")[-4000:] for path in sorted(self.folder.glob("*.log")))

    # ------------------------------------------------------------ looking inside

    def query(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        return self._run(sql, params)

    def query_with(self, sql: str, **params: Any) -> list[tuple[Any, ...]]:
        return self._run(sql, params)

    def _run(self, sql: str, params: Any) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = self._stack.enter_context(psycopg.connect(self.servers.database_url, autocommit=True))
        cursor = self._connection.execute(sql, params or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, sql: str, *params: Any) -> Any:
        return self.query(sql, *params)[0][0]


def speaks_http(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/")
        return bool(connection.getresponse().status)
    return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise StreamFailed(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


# ---------------------------------------------------------------- ours


@dataclass(frozen=True, kw_only=True)
class Channel:
    """What ``add_channel`` printed."""

    id: int
    public_id: str
    webhook_path: str


class Ours(System):
    """Our pipeline, on the same servers."""

    users = 100_000_000  # the next person's id, in whichever system

    def __init__(
        self,
        name: str = "ours",
        *,
        keep: bool = False,
        env: Mapping[str, str] | None = None,
        checkout: Path = CHECKOUT,
    ) -> None:
        super().__init__(name, keep=keep, env={"EXTRA_APPS": "bench", **(env or {})}, checkout=checkout)

    def prepare(self) -> None:
        self.run("manage.py", "release")
        self.start_web()

    def start_web(self) -> None:
        self.start("web", procfile(self.checkout)["web"])
        wait_until(lambda: answers(self.port), 30, "the web process answers")

    def start_workers(self) -> None:
        self.start("worker", procfile(self.checkout)["worker"])
        alive = "SELECT count(DISTINCT kind) = 3 FROM worker WHERE NOT dead"
        wait_until(lambda: bool(self.value(alive)), 30, "workers")

    def stop_workers(self) -> None:
        self.stop("worker")

    def ids_per_task(self) -> dict[str, float]:
        """How many conversations a Celery task carried, by its name; see ``bench.apps``."""
        counts: Counter[str] = Counter()
        for path in self.folder.glob("tasks-*.json"):
            counts.update(json.loads(path.read_text()))
        names = [name.removesuffix(" tasks") for name in counts if name.endswith(" tasks")]
        return {name: round(counts[f"{name} ids"] / counts[f"{name} tasks"], 2) for name in names}

    def add_channel(
        self, api: str, *, bot: str = "echo", tenant: str = "default", token: str = "1:bench", name: str = ""
    ) -> Channel:
        name = name or f"bench-{secrets.token_hex(4)}"
        settings = (f"token={token}", f"secret_token={SECRET}", f"limits={LIMITS}")
        pairs = [word for setting in settings for word in ("--set", setting)]
        said = self.run("manage.py", "add_channel", "telegram", "--name", name, "--tenant", tenant, "--bot", bot,
                        "--api-base", api, *pairs)  # fmt: skip
        return Channel(**json.loads(said))

    def people(self, channel: Channel, count: int, **options: Any) -> People:
        """``count`` people who have never written before."""
        first = Ours.users
        Ours.users += count
        return People(path=channel.webhook_path, secret=SECRET, first=first, count=count, **options)

    def pending(self) -> int:
        """The number of messages not handled and replies not recorded as sent."""
        return int(self.value(PENDING))

    def faults(self) -> list[str]:
        """Broken promises, in words; empty when each message is handled and each reply sent."""
        found = [f"{count} messages {status}" for status, count in self.query(
            "SELECT status, count(*) FROM message WHERE status <> 'handled' GROUP BY 1")]  # fmt: skip
        found += [f"{count} replies {status}" for status, count in self.query(
            "SELECT status, count(*) FROM reply WHERE status <> 'sent' GROUP BY 1")]  # fmt: skip
        return found
