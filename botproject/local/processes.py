"""Starts one server process, finds it again after a killed run, stops or kills it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from botproject.local.places import make_room, write_private

# Seconds until a started server must answer. Smaller: a Postgres that recovers is given up.
READY_SECONDS = 120.0
# Seconds in which a server that ends at once is started again. A crashed Postgres frees its memory
# and port only with its last child. Smaller: such a start fails.
RETRY_SECONDS = 20.0
# Seconds until a server that does not stop is killed. Smaller: a slow checkpoint is cut off.
STOP_SECONDS = 20.0
# Seconds between two looks at a server that starts or stops. Smaller: more CPU.
PAUSE_SECONDS = 0.02
# Bytes; a longer log is put aside at the next start. Larger: more disk.
LONGEST_LOG = 20 << 20
# A variable of every process of a run. It marks processes that outlive a killed run.
RUN_MARK = "LOCAL_RUN"


class ServerFailed(RuntimeError):
    """A server did not start or did not stop."""


class Server(ABC):
    """A server of ours, with its data in `directory`/`name`."""

    name: str
    graceful = signal.SIGTERM
    immediate = signal.SIGKILL
    # If its log ends with one of these texts, the next attempt may succeed.
    passing_troubles: tuple[str, ...] = ()

    def __init__(self, directory: Path) -> None:
        self.room = make_room(directory, self.name)
        self.log = self.room / f"{self.name}.log"
        self._port_file = self.room / "port"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = self._known_port() or free_port()

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    @abstractmethod
    def data(self) -> Path: ...

    @abstractmethod
    def prepare(self) -> None:
        """Create the data directory if it is missing."""

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]: ...

    def spawn(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program of this server, which writes into its log."""
        with self.open_log() as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)

    @abstractmethod
    def answers(self) -> bool:
        """Return True if a server with our data listens on our port."""

    @property
    @abstractmethod
    def pid_file(self) -> Path: ...

    @property
    def pid(self) -> int | None:
        """Return the process that uses our data, whoever started it, or None."""
        if self._process and self._process.poll() is None:
            return self._process.pid
        pid = first_number(self.pid_file)
        return pid if pid and works_in(pid, self.data) else None

    def alive(self) -> bool:
        """Return True if some process uses our data."""
        return self.pid is not None

    def start(self) -> None:
        """Use the running server or start one. It answers when this returns."""
        if self.alive():
            if self.answers():
                return
            self.stop()
        self.prepare()
        self._start_until_it_stays()

    def stop(self) -> None:
        self._end(self.graceful)

    def stop_immediately(self) -> None:
        self._end(self.immediate)

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _start_until_it_stays(self) -> None:
        """Start the server, again while its log says that the trouble may pass."""
        deadline = time.monotonic() + RETRY_SECONDS
        while not self._start_once():
            trouble = self._last_words()
            passing = any(words in trouble for words in self.passing_troubles)
            if not passing or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not start; {self.log} ends with:\n{trouble}")
            time.sleep(0.1)

    def _start_once(self) -> bool:
        """Start the server. Return False if it ended before it answered."""
        self._settle_port()
        self.pid_file.unlink(missing_ok=True)
        self._cut_log()
        self._process = self.launch()
        deadline = time.monotonic() + READY_SECONDS
        while self._process.poll() is None:
            if self.answers():
                return True
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} does not answer; see {self.log}")
            time.sleep(PAUSE_SECONDS)
        return False

    def _settle_port(self) -> None:
        """Keep the port, so that addresses stay valid, unless another process took it."""
        if self._known_port() != self.port:
            write_private(self._port_file, f"{self.port}\n")
        elif not port_is_free(self.port) and not self._process:
            self.port = free_port()
            write_private(self._port_file, f"{self.port}\n")

    def _known_port(self) -> int | None:
        return first_number(self._port_file)

    def open_log(self) -> BinaryIO:
        """Open the log for appending. Only its owner may read it."""
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(log, 0o600)
        return os.fdopen(log, "ab")

    def _cut_log(self) -> None:
        """Put a long log aside; the one before it is lost."""
        if self.log.exists() and self.log.stat().st_size > LONGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _last_words(self) -> str:
        """Return the end of the log, for an error message."""
        if not self.log.exists():
            return "(nothing)"
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-8:])

    def _end(self, signal_number: int) -> None:
        """Send a signal; kill the server if it does not end in time."""
        pid = self.pid
        if pid is None:
            return
        send(pid, signal_number)
        if not self._gone_within(pid, STOP_SECONDS):
            send(pid, signal.SIGKILL)
            if not self._gone_within(pid, STOP_SECONDS):
                raise ServerFailed(f"{self.name} (process {pid}) cannot be stopped")

    def _gone_within(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._runs(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def _runs(self, pid: int) -> bool:
        """Return True if the process exists.

        Our own child must be polled, or it stays as a zombie.
        """
        if self._process and self._process.pid == pid:
            return self._process.poll() is None
        return exists(pid)


def send(pid: int, signal_number: int) -> None:
    """Send a signal to a process, which may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def exists(pid: int) -> bool:
    """Return True if there is such a process, even another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def works_in(pid: int, folder: Path) -> bool:
    """Return True if this process is the server of `folder`.

    The pid in a file may belong to another process by now.
    """
    if not exists(pid):
        return False
    if not Path("/proc/self").exists():
        return lsof_cwd(pid) == folder
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == folder
    except OSError:
        return False


def lsof_cwd(pid: int) -> Path | None:
    """Return a process's directory on macOS, which has no /proc."""
    command = ["lsof", "-a", "-p", str(pid), "-d", "cwd", "-Fn"]
    answer = subprocess.run(command, capture_output=True, text=True)
    names = [line[1:] for line in answer.stdout.splitlines() if line.startswith("n")]
    return Path(names[0]) if names else None


def first_number(path: Path) -> int | None:
    """Return the number in the first line of a file, None if there is none."""
    try:
        return int(path.read_text().split("\n")[0])
    except (OSError, ValueError):
        return None


def free_port() -> int:
    """Return a port that is free now. Another process may take it before we do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
