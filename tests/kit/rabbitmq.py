"""A RabbitMQ of our own: one node in a folder of its own, on 127.0.0.1 only, with an ``epmd`` that ends with it.

Where it is not installed, tests that need it are skipped: ``apt-get install rabbitmq-server``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from botproject.local.places import make_folder
from botproject.local.processes import Server, free_port

MISSING = "no rabbitmq-server: `apt-get install rabbitmq-server`"
CONFIGURATION = """\
listeners.tcp.default = 127.0.0.1:{port}
log.console = true
log.console.level = warning
"""


def find() -> Path | None:
    """The server itself: what is on the PATH insists on its own user and folders."""
    return next(iter(sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))), None)


class RabbitMQ(Server):
    name = "rabbitmq"
    passing_troubles = ("eaddrinuse",)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._epmd_port, self._node_port = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def data(self) -> Path:
        return self.room / "data"

    @property
    def pid_file(self) -> Path:
        return self.data / "pid"

    def prepare(self) -> None:
        make_folder(self.data)
        (self.data / "rabbitmq.conf").write_text(CONFIGURATION.format(port=self.port))
        (self.data / "plugins").write_text("[].\n")
        if self._epmd is None:  # the server would start one that stays
            epmd = shutil.which("epmd")
            assert epmd, MISSING
            command = [epmd, "-address", "127.0.0.1", "-port", str(self._epmd_port)]
            self._epmd = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def launch(self) -> subprocess.Popen[bytes]:
        program = find()
        assert program, MISSING
        with self.log.open("ab") as log:
            return subprocess.Popen([str(program)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data,
                                    env=self._environment(), start_new_session=True)  # fmt: skip

    def _environment(self) -> dict[str, str]:
        folder = str(self.data)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
        }

    def answers(self) -> bool:
        try:
            with Connection(self.url, connect_timeout=5) as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
        except (OperationalError, OSError):
            return False
        return True

    def freeze(self) -> None:
        assert self.pid
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.pid
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()


@contextlib.contextmanager
def running(directory: Path) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(directory)
    try:
        broker.start()
        yield broker
    finally:
        broker.end()
