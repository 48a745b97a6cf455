"""One local Valkey (or Redis): its data, its password and its process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from botproject.local.binaries import find_valkey
from botproject.local.places import keep_secret, make_folder, write_private
from botproject.local.processes import Server

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{data}"
pidfile "{pid_file}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""
# A process title would overwrite the environment, in which a test run looks for its mark. Redis 6.0
# refuses this line.
NO_TITLE, NO_TITLE_SINCE = "set-proc-title no\n", 7


class Valkey(Server):
    name = "valkey"
    passing_troubles = ("Address already in use", "bind:")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._binary = find_valkey()
        self.password = keep_secret(self.room / "password")

    @property
    def data(self) -> Path:
        """Return the data directory of this program and version.

        Older programs cannot read newer files.
        """
        return self.room / f"{self._binary.path.name}-{self._binary.version}"

    @property
    def pid_file(self) -> Path:
        return self.data / "server.pid"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        make_folder(self.data)

    def launch(self) -> subprocess.Popen[bytes]:
        command = [self._binary.path, self._write_configuration()]
        # Ctrl-C must not stop the server before its clients; its files hold what it is told (umask).
        return self.spawn(command, cwd=self.data, umask=0o077, start_new_session=True)

    def answers(self) -> bool:
        try:
            with self._client() as client:
                # Fails while the server still loads its file.
                client.exists("ready")
                return bool(client.config_get("dir") == {"dir": str(self.data)})
        except redis.RedisError:
            return False

    def flush(self) -> None:
        with self._client() as client:
            client.flushall()

    def _client(self) -> redis.Redis:
        """Connect without retries, which would hide that the server is away."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis.from_url(self.url, socket_timeout=5, retry=once, decode_responses=True)

    def _write_configuration(self) -> Path:
        """Write a configuration file: arguments would show the password to every user."""
        path, more = self.room / "valkey.conf", NO_TITLE if self._binary.version >= NO_TITLE_SINCE else ""
        words = {"port": self.port, "password": self.password, "data": self.data, "pid_file": self.pid_file}
        write_private(path, CONFIGURATION.format(**words) + more)
        return path
