"""Starts, watches and stops Postgres and Valkey on this machine.

    with local_servers(Path(".data")) as servers:      # make run
        servers.database_url, servers.redis_url
    with private_servers() as servers:                 # a test that breaks them
        servers.postgres.kill(); servers.postgres.start()

For a URL that is given, no server is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from botproject.local.places import make_folder, remove_room, write_private
from botproject.local.postgres import Postgres
from botproject.local.processes import Server, ServerFailed
from botproject.local.valkey import Valkey

# Seconds between two looks whether the servers live. Larger: a dead one is back later.
WATCH_SECONDS = 0.2

Say = Callable[[str], None]


class AlreadyRunning(RuntimeError):
    """Another run uses these servers."""


@dataclass
class Servers:
    """Both servers. One whose URL was given is None."""

    database_url: str
    redis_url: str
    postgres: Postgres | None = None
    valkey: Valkey | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def started(self) -> list[Server]:
        return [server for server in (self.postgres, self.valkey) if server]

    def stop(self) -> None:
        self._stopping.set()
        for server in self.started:
            server.stop()

    def watch(self, say: Say) -> None:
        """Restart a server that dies, in a thread of its own."""
        threading.Thread(target=self._watch, args=(say,), name="servers", daemon=True).start()

    def _watch(self, say: Say) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            for server in self.started:
                if not server.alive() and not self._stopping.is_set():
                    say(f"{server.name} died; starting it again")
                    restart(server, say)


@contextlib.contextmanager
def local_servers(
    directory: Path,
    *,
    database_url: str = "",
    redis_url: str = "",
    settings: Mapping[str, str] | None = None,
    wait_seconds: float = 0.0,
    say: Say = lambda text: None,
) -> Iterator[Servers]:
    """Run the servers of `directory`, for one run at a time. `servers.json` tells others their addresses.

    Another run may take `wait_seconds` to end (it is stopping).
    """
    with only_run(directory, wait_seconds, say):
        servers = start(directory, database_url, redis_url, settings)
        write_addresses(directory, servers)
        try:
            yield servers
        finally:
            servers.stop()


@contextlib.contextmanager
def private_servers(settings: Mapping[str, str] | None = None, template: Path | None = None) -> Iterator[Servers]:
    """Run two servers in a temporary directory, which is deleted afterwards.

    Postgres begins with a copy of the data in `template`, the directory of servers that are stopped.
    """
    directory = Path(tempfile.mkdtemp(prefix="servers-"))
    try:
        if template:
            copy_postgres(template, directory)
        with local_servers(directory, settings=settings) as servers:
            yield servers
            for server in servers.started:
                server.stop_immediately()  # nobody reads its data again
    finally:
        for name in (Postgres.name, Valkey.name):
            remove_room(directory / name)
        shutil.rmtree(directory, ignore_errors=True)


def copy_postgres(source: Path, target: Path) -> None:
    """Copy a stopped Postgres with its owner and its password, but for its port and its log."""
    room = target / Postgres.name
    subprocess.run(["cp", "-a", (source / Postgres.name).resolve(), room], check=True)
    for name in ("port", f"{Postgres.name}.log"):
        (room / name).unlink(missing_ok=True)


def start(directory: Path, database_url: str, redis_url: str, settings: Mapping[str, str] | None) -> Servers:
    """Start the servers for which no URL is given."""
    postgres = None if database_url else Postgres(directory, settings)
    valkey = None if redis_url else Valkey(directory)
    for server in (postgres, valkey):
        if server:
            server.start()
    return Servers(
        database_url=postgres.url if postgres else database_url,
        redis_url=valkey.url if valkey else redis_url,
        postgres=postgres,
        valkey=valkey,
    )


@contextlib.contextmanager
def only_run(directory: Path, wait_seconds: float, say: Say = lambda text: None) -> Iterator[None]:
    """Keep a second run out: it would stop the servers of the first.

    The lock ends with its process, so a killed run leaves none.
    """
    make_folder(directory)
    deadline = time.monotonic() + wait_seconds
    with (directory / "lock").open("w") as lock:
        if not try_lock(lock):
            say(f"another run uses {directory}; waiting up to {wait_seconds:.0f} s for it to stop")
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise AlreadyRunning(f"another run uses {directory}")
                time.sleep(0.2)
        yield


def try_lock(file: IO[str]) -> bool:
    """Lock the file if no other process has; return whether we have the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_addresses(directory: Path, servers: Servers) -> None:
    addresses = {"database_url": servers.database_url, "redis_url": servers.redis_url}
    write_private(directory / "servers.json", json.dumps(addresses) + "\n")


def restart(server: Server, say: Say) -> None:
    """Start a server again. A failure is only said: the next look tries again."""
    try:
        server.start()
    except (ServerFailed, OSError) as error:
        say(str(error))
