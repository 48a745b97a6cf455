"""One local Postgres: its data, its password and its process."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from botproject.local.binaries import Binary, find_postgres
from botproject.local.places import (
    give_to,
    keep_secret,
    others_may_enter,
    readable_copy,
    server_user,
)
from botproject.local.processes import RUN_MARK, Server, ServerFailed

# The first three keep what was committed. The others suit a developer's machine.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_error_verbosity": "terse",  # a refused row is not quoted
}


class Postgres(Server):
    name = "postgres"
    # "Fast": ends sessions, then checkpoints. SIGTERM would wait for clients to leave.
    graceful = signal.SIGINT
    immediate = signal.SIGQUIT
    passing_troubles = ("Address already in use", "shared memory block", "lock file")

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory)
        self._binary = find_postgres()
        self._settings = {**SETTINGS, **(settings or {})}
        self._user = server_user()
        self.password = keep_secret(self.room / "password")

    @property
    def data(self) -> Path:
        """Return the data directory of this major version. Other versions' data stays untouched."""
        return self.room / str(self._binary.version)

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{quote(self.password)}@127.0.0.1:{self.port}/postgres"

    def data_of_other_versions(self) -> list[Path]:
        """Return the data directories that this Postgres cannot read."""
        found = (each.parent for each in self.room.glob("*/PG_VERSION"))
        return sorted(each for each in found if each != self.data)

    def prepare(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._initialise()

    def launch(self) -> subprocess.Popen[bytes]:
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        command: list[str | Path] = [self._program("postgres"), "-D", self.data, f"-cport={self.port}", *options]
        # Ctrl-C must not stop the server before its clients.
        return self.spawn(command, start_new_session=True, **self._surroundings())

    def answers(self) -> bool:
        """Return True if a Postgres with our data answers; another one may have taken the port."""
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row is not None and Path(row[0]) == self.data

    def _initialise(self) -> None:
        """Run initdb in a new directory and rename it when complete.

        A killed initdb so leaves nothing that looks like data.
        """
        fresh = self.room / f"{self._binary.version}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        give_to(self._user, fresh)
        with readable_copy(self.password, self.room, self._user) as password_file:
            self._run_initdb(fresh, password_file)
        fresh.rename(self.data)

    def _run_initdb(self, folder: Path, password_file: Path) -> None:
        command: list[str | Path] = [
            self._program("initdb"),
            f"--pgdata={folder}",
            "--username=postgres",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            *locale_options(self._binary.version),
        ]
        if self.spawn(command, **self._surroundings()).wait():
            raise ServerFailed(f"initdb failed; {self.log} ends with:\n{self._last_words()}")

    def _surroundings(self) -> dict[str, Any]:
        """Return what ``Popen`` needs to run a program of Postgres, as the server's user."""
        return {"cwd": "/", "env": clean_environment(), **as_user(self._user)}

    def _program(self, name: str) -> Path:
        """Return a program of Postgres, at a place where the server's user can run it."""
        return self._reachable_folder(self._binary) / name

    def _reachable_folder(self, binary: Binary) -> Path:
        """Return the programs' folder, or a copy that the server's user can reach."""
        if self._user is None or others_may_run(binary.path):
            return binary.folder
        if not binary.bundle:
            raise ServerFailed(f"{self._user} cannot run {binary.path}")
        return self._copied_folder(binary)

    def _copied_folder(self, binary: Binary) -> Path:
        """Return a copy of the programs' folder, for a venv in a home that others may not enter.

        Size and time of the program name the copy, so that an update makes a new one.
        """
        package = binary.bundle[0]
        stamp = binary.path.stat()
        copy = self.room / f"programs-{stamp.st_mtime_ns:x}-{stamp.st_size:x}"
        if not copy.exists():
            copy_readable(binary.bundle, copy)
        return copy / binary.folder.relative_to(package.parent)


def locale_options(version: int) -> list[str]:
    """Return options for a UTF-8 locale that sorts by code point and does not depend on the system."""
    if version >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]


def clean_environment() -> dict[str, str]:
    """Return an environment without PGDATA, PGPORT and the like, which would change our server.

    The marks of a run stay, so that its processes can be found.
    """
    marks = {name: value for name, value in os.environ.items() if name.startswith(RUN_MARK)}
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **marks}


def as_user(name: str | None) -> dict[str, Any]:
    """Return what ``Popen`` needs to run a program as this user; None is ourselves."""
    if name is None:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def others_may_run(path: Path) -> bool:
    return others_may_enter(path.parent) and bool(path.stat().st_mode & 0o001)


def copy_readable(folders: tuple[Path, ...], target: Path) -> None:
    """Copy programs so that every user can run them.

    The rename comes last: a half copy is never used.
    """
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    for folder in folders:
        shutil.copytree(folder, fresh / folder.name, symlinks=True)
    for path in (fresh, *fresh.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
    fresh.rename(target)
