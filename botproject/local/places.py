"""Makes directories and files for the local servers that their user can reach.

Postgres refuses to run as root, so root runs it as `nobody`, who must be able to
reach its data and its programs. Below a directory that others may not enter
(a 0700 home) that is impossible; then they live under OUTSIDE, and `.data` holds
a link. Nobody's permissions above `.data` are ever changed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

# Where root's servers live if their user cannot enter `.data`.
OUTSIDE = Path("/var/lib/botproject-local")
UNPRIVILEGED = "nobody"


def server_user() -> str | None:
    """Return the user that runs Postgres, or None for ourselves."""
    return UNPRIVILEGED if os.geteuid() == 0 else None


def others_may_enter(folder: Path) -> bool:
    """Return True if other users may pass through this folder and all above it."""
    resolved = folder.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (resolved, *resolved.parents))


def make_room(directory: Path, name: str) -> Path:
    """Return the folder for a server and its data: `directory/name` or where that link leads."""
    place = directory / name
    make_folder(directory)
    if server_user() is None or others_may_enter(directory):
        make_folder(place)
    elif not place.is_dir() or not others_may_enter(place):
        move_outside(place)
    return place.resolve()


def make_folder(folder: Path) -> None:
    """Make a folder that others cannot list. Servers that root started may pass through it."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid == os.geteuid():
        folder.chmod(0o711 if server_user() else 0o700)


def move_outside(place: Path) -> None:
    """Move a folder below OUTSIDE with its content, and leave a link at `place`."""
    real = OUTSIDE / secrets.token_hex(8)
    make_folder(OUTSIDE)
    if place.is_dir() and not place.is_symlink():
        shutil.move(place, real)
    make_folder(real)
    place.unlink(missing_ok=True)
    place.symlink_to(real)


def remove_room(place: Path) -> None:
    """Delete a server's folder (for private servers of tests)."""
    shutil.rmtree(place.resolve(), ignore_errors=True)
    if place.is_symlink():
        place.unlink()


def give_to(user: str | None, path: Path) -> None:
    """Make a user the owner of a file; None leaves it ours."""
    if user:
        account = pwd.getpwnam(user)
        os.chown(path, account.pw_uid, account.pw_gid)


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically. Only its owner may read it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def keep_secret(path: Path) -> str:
    """Return the password in a file, generated at the first call."""
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    write_private(path, secrets.token_urlsafe(24) + "\n")
    return path.read_text().strip()


@contextlib.contextmanager
def readable_copy(text: str, folder: Path, user: str | None) -> Iterator[Path]:
    """Make a temporary file that only `user` may read."""
    path = folder / f".{secrets.token_hex(8)}"
    write_private(path, text)
    give_to(user, path)
    try:
        yield path
    finally:
        path.unlink()
