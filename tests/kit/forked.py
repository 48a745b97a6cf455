"""Processes of the product that are forked from one that has imported their packages (``tests.kit.forkserver``).

server = forked.server()                              # one of this test process
process = server.start(argv, env, stdout=log)         # as subprocess.Popen(argv, env=env, ...) does it
done = server.prepared(env).run(["manage.py", ...])   # as subprocess.run: one that has set up Django already
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
# Bytes of a process's arguments and of its environment that /proc can show.
ARGUMENTS, ENVIRONMENT = 16 << 10, 64 << 10


class ForkedProcess:
    """What ``subprocess.Popen`` would be. It leads a process group of its own."""

    def __init__(self, report: int) -> None:
        self._report, self._reading = FileIO(report), threading.Lock()
        self.returncode: int | None = None
        self.pid = int(self._report.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._report, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            with self._reading:
                if self.returncode is None:
                    self.returncode = int(self._report.readline() or -9)  # nothing: its keeper was killed, as it was
        return self.returncode


class ForkServer:
    """The other end of a server's socket. Closing it ends the server, and no process of it."""

    def __init__(self, requests: socket.socket, process: ForkedProcess | None = None) -> None:
        self._requests, self._process = requests, process

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: IO[bytes] | socket.socket | None = None,
        stdout: IO[bytes],
        stderr: IO[bytes] | None = None,
        serves: bool = False,
    ) -> ForkedProcess:
        request = json.dumps({"argv": argv, "env": dict(env), "cwd": str(ROOT), "serves": serves}).encode()
        reading, writing = os.pipe()
        with open(os.devnull, "rb") as nothing, open(writing, "wb") as report:
            standard = [stdin or nothing, stdout, stderr or stdout]
            socket.send_fds(self._requests, [request], [report.fileno(), *(file.fileno() for file in standard)])
        return ForkedProcess(reading)

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Wait for its end; what it wrote."""
        with contextlib.ExitStack() as stack:
            stdin, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            stdin.write((text or "").encode())
            stdin.seek(0)
            code = self.start(argv, env, stdin=stdin, stdout=stdout, stderr=stderr).wait()
            said = []
            for file in (stdout, stderr):
                file.seek(0)
                said.append(file.read().decode())
        return subprocess.CompletedProcess(argv, code, *said)

    def prepared(self, env: Mapping[str, str], log: Path) -> ForkServer:
        """A server that has set up Django with this environment."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as output:
            process = self.start(["manage.py"], env, stdin=theirs, stdout=output, serves=True)
        return ForkServer(ours, process)

    def close(self) -> None:
        self._requests.close()
        if self._process:
            self._process.wait()


@functools.cache
def server() -> ForkServer:
    """The server of this process; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    without = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-u", "-m", "tests.kit.forkserver", "x" * ARGUMENTS]
    with theirs:
        more = {**without, "ROOM": "x" * ENVIRONMENT}
        started = subprocess.Popen(command, cwd=ROOT, env=more, stdin=theirs, start_new_session=True)
    started.returncode = 0  # it outlives the last of us, and Popen need not warn that it does
    return ForkServer(ours)
