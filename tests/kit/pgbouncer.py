"""A PgBouncer of our own in transaction mode, before a Postgres of ours.

Where it is not installed, tests that need it are skipped: ``apt-get install pgbouncer``, or ``PGBOUNCER=/path/to/it``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from botproject.local.places import give_to, make_folder, server_user, write_private
from botproject.local.postgres import as_user, clean_environment
from botproject.local.processes import Server

MISSING = "no pgbouncer: `apt-get install pgbouncer` (or set PGBOUNCER=/path/to/it)"
PREPARES_SINCE = (1, 22)  # statements that a client prepared work in transaction mode, and so does forgetting them
POOL = 8  # sessions: fewer than clients, so that they are handed on
CONFIGURATION = """\
[databases]
postgres = host={server.hostname} port={server.port} dbname=postgres pool_size={pool}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
max_client_conn = 200
server_login_retry = 1
query_wait_timeout = 5
{more}
"""


def find() -> str | None:
    """Debian has it in a folder that only root has on its PATH."""
    return os.environ.get("PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said)
    assert found, said
    return tuple(map(int, found.groups()))


class PgBouncer(Server):
    name = "pgbouncer"
    passing_troubles = ("Address already in use",)

    def __init__(self, directory: Path, database_url: str, *, prepared: bool) -> None:
        super().__init__(directory)
        self._server = urlsplit(database_url)
        self._prepared = prepared

    @property
    def url(self) -> str:
        user = self._server.netloc.rpartition("@")[0]
        return self._server._replace(netloc=f"{user}@127.0.0.1:{self.port}").geturl()

    @property
    def data(self) -> Path:
        return self.room / "data"

    @property
    def pid_file(self) -> Path:
        return self.data / "pid"

    def prepare(self) -> None:
        make_folder(self.data)
        users, password = self.data / "users.txt", psycopg.conninfo.conninfo_to_dict(self._server.geturl())["password"]
        more = "max_prepared_statements = 200" if self._prepared else ""
        text = CONFIGURATION.format(server=self._server, pool=POOL, port=self.port, users=users, more=more)
        for path, words in ((users, f'"{self._server.username}" "{password}"\n'), (self._configuration, text)):
            write_private(path, words)
            give_to(server_user(), path)

    @property
    def _configuration(self) -> Path:
        return self.data / "pgbouncer.ini"

    def launch(self) -> subprocess.Popen[bytes]:
        program = find()
        assert program, MISSING
        with self.log.open("ab") as log:
            return subprocess.Popen([program, str(self._configuration)], stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log, cwd=self.data, env=clean_environment(), start_new_session=True,
                                    **as_user(server_user()))  # fmt: skip

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=3) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running(directory: Path, database_url: str, *, prepared: bool) -> Iterator[PgBouncer]:
    pooler = PgBouncer(directory, database_url, prepared=prepared)
    pooler.start()
    try:
        yield pooler
    finally:
        pooler.kill()
