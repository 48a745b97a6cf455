"""A Postgres with the tables of the sample project, made once in a run. Stacks start on copies of it."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import sys
from pathlib import Path

from botproject.local.places import remove_room
from botproject.local.postgres import Postgres
from botproject.local.servers import local_servers
from tests.kit import forked


@functools.cache
def migrated() -> Path:
    """The folder of a pair of servers that is stopped; the first who asks in a run makes it."""
    folder = _folder()
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "migrated").exists():
            forget()
            with local_servers(folder) as servers:
                addresses = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
                command = [sys.executable, "manage.py", "migrate", "--noinput"]
                done = forked.server().run(command, {**os.environ, **addresses})
                assert done.returncode == 0, done.stdout + done.stderr
            (folder / "migrated").touch()
    return folder


def forget() -> None:
    """At the begin of a run: migrations may be others by now."""
    remove_room(_folder() / Postgres.name)
    shutil.rmtree(_folder(), ignore_errors=True)


def _folder() -> Path:
    return Path(os.environ["DATA_DIR"]) / "template"
