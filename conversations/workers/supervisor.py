"""Keeps commands running: one readable log, a restart after each death, and one stop in time.

Used by `manage.py run_worker` (which replaces itself by it, see `exec_supervisor`) and `make run`.
It is our own because no other supervisor does all of this: it restarts with a growing wait and
never gives up (honcho stops all at the first death, supervisord gives up), its children die with
it, it tells a process which one died before it, and it needs neither Django nor a package. It costs
little more memory than Python itself. See docs/decisions/0018-own-supervisor.md.

The main thread does all but the writing. It must start the children, since Linux ties a child's
life to the *thread* that started it (PR_SET_PDEATHSIG).

A worker process shows by its *pulse* (``workers.pulse``) that its threads run. A turn that never
gives up the interpreter's lock stops them all. Then a second process starts beside the first, which
is killed if it stays so. See docs/decisions/0020-a-process-that-stands-still.md.

More than 350 lines in one file: it runs alone, without the package on its path.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

# Seconds from SIGTERM to SIGKILL. Longer: a host (Heroku: 30 s) kills first; shorter: turns are cut
# off.
STOP_SECONDS = 22.0
# Shortest and longest wait before a restart, in seconds; it doubles each time. Longer: a process is
# missing for longer; shorter: one that fails at once keeps the CPU busy.
BACKOFF_SECONDS = (0.2, 5.0)
# A process that ran for so many seconds is restarted after the shortest wait. Larger: a rare crash
# costs a longer wait; smaller: one that fails soon after each start is restarted too often.
STEADY_SECONDS = 10.0
POLL_SECONDS = 0.1  # between two looks for dead processes; longer: later restarts; shorter: CPU
# Seconds without a pulse after which another process starts beside a worker process, which is told
# to stop. Longer: other people wait longer; shorter: a busy process is replaced needlessly.
REPLACE_SECONDS = 3.0
# Seconds without a pulse after which a process is killed. Longer: its memory and connections are
# taken for longer; shorter: turns that would have ended run again.
KILL_SECONDS = 10.0
# Seconds that one look adds to a silence at most. If we stood still ourselves (the machine slept,
# or had no CPU for us), so may the children. Larger: then healthy ones may be killed; smaller than
# POLL_SECONDS: a silence lasts longer than it says.
LOOK_SECONDS = 2 * POLL_SECONDS
STACKS_SIGNAL = signal.SIGUSR2  # a process with a pulse answers it with the stacks of its threads
LONGEST_LINE = 1 << 20  # bytes; a longer line is passed on in pieces; larger: more memory
READ_BYTES = 1 << 16  # most bytes of one read; larger: fewer reads, more memory
COLOURS = (36, 33, 35, 32, 34, 96, 93, 95)  # of names before lines: ANSI codes, one per command

PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
_memfd_create = getattr(os, "memfd_create", None)  # Linux only; elsewhere no pulse is watched


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to keep running. `environment` is added to our own."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class LineWriter:
    """Writes lines in its own thread, so that a slow reader of the log does not stop the children.

    Nothing is dropped: lines that are not read yet wait in memory.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # None: the end
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        self._waiting.put(line)

    def close(self, timeout_seconds: float) -> None:
        """Write what is left, for at most `timeout_seconds`."""
        self._waiting.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        for line in iter(self._waiting.get, None):
            # A closed reader (`make run | head`) must not stop the work.
            with suppress(OSError, ValueError):
                self._stream.write(line)
                self._stream.flush()


class Run:
    """One process of a command, and for how long its pulse has stood still.

    The pulse is a byte of shared memory. It is 0 until the process begins it: a long start does not
    count, and a program without a pulse is not watched.
    """

    def __init__(self, command: Command, environment: Mapping[str, str]) -> None:
        self.started_at = time.monotonic()
        self.silent_seconds = 0.0
        self.reported = False  # the log has the stacks of this silence
        self._last_pulse = 0
        shared = [_memfd_create("pulse")] if _memfd_create else []
        for descriptor in shared:
            os.ftruncate(descriptor, 1)
        self._pulse = mmap.mmap(shared[0] if shared else -1, 1)  # -1: memory of our own, which stays 0
        ours = {"PYTHONUNBUFFERED": "1", "PULSE_FD": "".join(map(str, shared)), **environment}
        try:
            self.process = subprocess.Popen(
                command.argv,
                env={**os.environ, **ours, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=shared,
                # Its own session: Ctrl-C reaches us alone, and we pass on one SIGTERM.
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),
            )
        finally:
            for descriptor in shared:
                os.close(descriptor)

    def look(self, seconds: float) -> None:
        """Look at the pulse, ``seconds`` after the last look.

        A process that somebody stopped (SIGSTOP, a debugger) is not silent: it goes on when they
        say so, and the sweeper gives its lanes to others meanwhile.
        """
        last, self._last_pulse = self._last_pulse, self._pulse[0]
        self.silent_seconds += seconds
        if not last or last != self._last_pulse or (self.silent_seconds >= REPLACE_SECONDS and self._stopped()):
            self.silent_seconds, self.reported = 0.0, False

    def reap(self) -> int | None:
        """Return the exit code if the process has ended, else None."""
        code = self.process.poll()
        if code is not None:
            self.kill()  # its own children, if they lived on, would keep its port
        return code

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _stopped(self) -> bool:
        with suppress(OSError), open(f"/proc/{self.process.pid}/stat") as stat:
            return stat.read().rpartition(") ")[2][0] in "Tt"
        return False


class Child:
    """One command, its current process, and when it may start again.

    ``stuck`` is an earlier process that stood still. Another one has taken its place.
    """

    def __init__(self, command: Command, prefix: bytes) -> None:
        self.command = command
        self.prefix = prefix
        self.run: Run | None = None
        self.stuck: Run | None = None
        self.predecessor = {"PREDECESSOR_PID": ""}  # tells the next process which one died before it
        self._start_at = 0.0
        self._wait_seconds = BACKOFF_SECONDS[0]

    def due(self) -> bool:
        return self.run is None and time.monotonic() >= self._start_at

    def start(self) -> BinaryIO:
        """Start the command. Return its output (stdout and stderr together)."""
        self.run = Run(self.command, self.predecessor)
        assert self.run.process.stdout is not None
        return self.run.process.stdout  # type: ignore[return-value]

    def runs(self) -> list[Run]:
        """Return the processes that have not ended."""
        return [run for run in (self.stuck, self.run) if run]

    def watch(self, seconds: float) -> Iterator[str]:
        """Look at each pulse, and yield what was done about one that stands still.

        At most one process more than usual runs: where there is one, the next that stands still is
        killed in its time and started again.
        """
        for run in self.runs():
            run.look(seconds)
            if run.silent_seconds >= KILL_SECONDS:
                yield f"process {run.process.pid} has stood still for {KILL_SECONDS:g} s, and is killed"
                run.kill()
                run.silent_seconds = 0.0
            elif run.silent_seconds >= REPLACE_SECONDS:
                yield from self._replace(run)

    def _replace(self, run: Run) -> Iterator[str]:
        """Let a process that stands still write its stacks, and let another take its place.

        If it goes on, it ends as at every stop: nothing of its work is cut off.
        """
        if not run.reported:
            run.reported = True
            yield f"process {run.process.pid} stands still; its threads:"
            run.process.send_signal(STACKS_SIGNAL)
        if self.stuck is None:
            yield "another process takes its place"
            run.process.send_signal(signal.SIGTERM)
            self.stuck, self.run, self._start_at = run, None, 0.0
            self.predecessor = {"PREDECESSOR_PID": ""}  # it lives; the number before it may be another's by now

    def reap(self, *, restarts: bool) -> Iterator[str]:
        """Yield how processes ended since the last call, and plan the restart of the current one."""
        if self.stuck and (code := self.stuck.reap()) is not None:
            self.stuck = None
            yield ending(code, restarts=False)
        if self.run and (code := self.run.reap()) is not None:
            self.predecessor = {"PREDECESSOR_PID": str(self.run.process.pid)}
            self.delay_start()
            self.run = None
            yield ending(code, restarts=restarts)

    def delay_start(self) -> None:
        """Set the time of the next start: the wait grows while starts fail (`BACKOFF_SECONDS`)."""
        now = time.monotonic()
        if self.run and now - self.run.started_at >= STEADY_SECONDS:
            self._wait_seconds = BACKOFF_SECONDS[0]
        self._start_at = now + self._wait_seconds
        self._wait_seconds = min(self._wait_seconds * 2, BACKOFF_SECONDS[1])

    def terminate(self) -> None:
        for run in self.runs():
            run.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        for run in self.runs():
            run.kill()


class Output:
    """A child's output, cut into lines."""

    def __init__(self, child: Child, stream: BinaryIO) -> None:
        self.child = child
        self.stream = stream
        self._rest = b""
        os.set_blocking(stream.fileno(), False)

    def read(self) -> tuple[list[bytes], bool]:
        """Return complete lines, and False once the output has ended."""
        try:
            data = os.read(self.stream.fileno(), READ_BYTES)
        except BlockingIOError:
            return [], True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._rest and (not data or len(self._rest) > LONGEST_LINE):
            lines.append(self._rest)
            self._rest = b""
        return lines, bool(data)


class Supervisor:
    """Runs `commands` until SIGTERM or SIGINT (or `stop`)."""

    def __init__(
        self, commands: Sequence[Command], *, stream: BinaryIO | None = None, stop_seconds: float = STOP_SECONDS
    ) -> None:
        stream = stream or sys.stdout.buffer
        colours = wants_colour(stream)
        width = max(len(command.name) for command in commands)
        self._children = [
            Child(command, prefix(command.name, width, index if colours else None))
            for index, command in enumerate(commands)
        ]
        self._own_prefix = prefix("", width, None)
        self._writer = LineWriter(stream)
        self._selector = selectors.DefaultSelector()
        self._stop_seconds = stop_seconds
        self._stopping = False
        self._looked_at = time.monotonic()

    def run(self) -> int:
        """Run until the stop. Return 0 if all ended in time, 1 if some had to be killed."""
        previous = {number: signal.signal(number, lambda *_: self.stop()) for number in STOP_SIGNALS}
        try:
            while not self._stopping:
                for child in self._children:
                    if child.due():
                        self._start(child)
                self._turn()
            return self._end()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        self._stopping = True

    def say(self, text: str) -> None:
        """Write a line of our own to the log."""
        self._writer.write(self._own_prefix + f"* {text}\n".encode())

    def write(self, text: str) -> None:
        """Write text without a prefix."""
        self._writer.write(text.encode())

    def _start(self, child: Child) -> None:
        try:
            stream = child.start()
        except OSError as error:
            self._report(child, f"cannot start: {error}")
            child.delay_start()
        else:
            self._selector.register(stream, selectors.EVENT_READ, Output(child, stream))

    def _turn(self) -> None:
        """Pass on output; report processes that ended or stand still."""
        for key, _ in self._selector.select(POLL_SECONDS):
            self._pass_on(key.data)
        now = time.monotonic()
        seconds, self._looked_at = min(now - self._looked_at, LOOK_SECONDS), now
        for child in self._children:
            for text in (*child.watch(seconds), *child.reap(restarts=not self._stopping)):
                self._report(child, text)

    def _pass_on(self, output: Output) -> None:
        lines, more = output.read()
        for line in lines:
            self._writer.write(output.child.prefix + line + b"\n")
        if not more:
            self._selector.unregister(output.stream)
            output.stream.close()

    def _report(self, child: Child, text: str) -> None:
        self._writer.write(child.prefix + f"* {text}\n".encode())

    def _end(self) -> int:
        """Send SIGTERM to each child, wait, then kill those that still run."""
        for child in self._children:
            child.terminate()
        in_time = self._wait_for_all(self._stop_seconds)
        if not in_time:
            for child in self._children:
                child.kill()
            self._wait_for_all(2.0)
        self._drain()
        self._writer.close(timeout_seconds=5.0)
        return 0 if in_time else 1

    def _wait_for_all(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while running := any(child.runs() for child in self._children):
            if time.monotonic() >= deadline:
                break
            self._turn()
        return not running

    def _drain(self) -> None:
        """Pass on the last output of processes that have ended."""
        while ready := self._selector.select(0):
            for key, _ in ready:
                self._pass_on(key.data)


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def prefix(name: str, width: int, colour_index: int | None) -> bytes:
    text = f"{name:<{width}} | "
    if colour_index is None:
        return text.encode()
    colour = COLOURS[colour_index % len(COLOURS)]
    return f"\x1b[{colour}m{text}\x1b[0m".encode()


def wants_colour(stream: BinaryIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def ending(code: int, *, restarts: bool) -> str:
    reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return reason + ("; starting it again" if restarts else "")


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Return what the child runs before exec, so that the kernel kills it when its parent dies."""
    if _prctl is None:
        return None

    def bind() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the call above.
        if os.getppid() != parent:
            os._exit(1)

    return bind


def exec_supervisor(commands: Iterable[Command]) -> None:
    """Replace this process by a supervisor of `commands`: that frees the memory of our imports."""
    listed = [{"name": each.name, "argv": list(each.argv), "environment": dict(each.environment)} for each in commands]
    sys.stdout.flush()
    # -I: the folder of this file must not shadow the standard library.
    os.execv(sys.executable, [sys.executable, "-I", __file__, json.dumps(listed)])


def main(arguments: Sequence[str]) -> int:
    return Supervisor([Command(**each) for each in json.loads(arguments[0])]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
