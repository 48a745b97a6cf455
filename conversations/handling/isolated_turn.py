"""Runs a suspect turn in a process of its own, so that a crash ends that process and not the
worker.

``IsolatedTurns``, here, is the worker's end. ``ForkServer`` (``manage.py run_turns``) is the other
end: it has imported the project and forks once per turn, so that a turn costs milliseconds and not
the second of an import. The two exchange JSON lines over pipes.

Turns start one at a time, because a message that crashes does so early. A turn that is still
running after ``ALONE_SECONDS`` lets the next one start: suspects do not wait for each other's slow
calls.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from concurrent.futures import Future, wait

import msgspec
import structlog
from django.conf import settings

from conversations import turns
from conversations.contracts import Struct

log = structlog.get_logger(__name__)

# Isolated turns that a worker runs at the same time. Larger: suspects that wait for slow calls end
# sooner, with more forked processes; smaller: less memory.
AT_ONCE = 8
# Seconds for which the next isolated turn waits while this one runs alone. Longer: a crash is less
# likely to hit others that run beside it; shorter: suspects wait less for each other.
ALONE_SECONDS = 0.1
# Seconds allowed for starting the fork server, beyond TURN_SECONDS. Longer: a fork server that
# hangs is replaced later; shorter: one that starts slowly is killed before it is ready.
START_SECONDS = 30.0


class TurnRequest(Struct, frozen=True):
    """A line to the fork server."""

    id: int
    task: turns.Task


class TurnResult(Struct, frozen=True):
    """A line from the fork server: the turn ended, maybe by a crash."""

    id: int
    output: turns.Output


Answer = Future[turns.Output | None]

_start_lock = threading.Lock()
_server: IsolatedTurns | None = None


def run(task: turns.Task) -> turns.Output | None:
    """Run a turn in a process of its own and wait for it.

    Return its output; where it crashed or took too long, that failure. Return None if the fork
    server failed: that is nobody's failed turn.
    """
    global _server
    with _start_lock:
        if _server is None or _server.ended.is_set():
            _server = IsolatedTurns()
        server = _server
        answer = server.begin(task)
        wait([answer], ALONE_SECONDS)
    try:
        return answer.result(settings.TURN_SECONDS + START_SECONDS)
    except TimeoutError:
        server.kill()
        return None


class IsolatedTurns:
    """The worker's end: starts the fork server, sends turns, gives results to callers."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[int, Answer] = {}
        command = [sys.executable, "-m", "django", "run_turns"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, name="isolated-turns", daemon=True).start()

    def begin(self, task: turns.Task) -> Answer:
        """Send a turn to the fork server. Return a future of its output; of None if the server ends first."""
        answer: Answer = Future()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            try:
                self._process.stdin.write(msgspec.json.encode(TurnRequest(id=number, task=task)) + b"\n")
                self._process.stdin.flush()
            except OSError:
                self.ended.set()
                answer.set_result(None)
            else:
                self._waiting[number] = answer
        return answer

    def kill(self) -> None:
        """Kill the fork server. All its turns get None, and the next turn starts a new one."""
        self._process.kill()

    def _read(self) -> None:
        """Give each result to its waiting caller; None to all once the fork server ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            result = msgspec.json.decode(line, type=TurnResult)
            with self._lock:
                self._waiting.pop(result.id).set_result(result.output)
        log.warning("isolated turns ended", code=self._process.wait())
        with self._lock:
            self.ended.set()
            for answer in self._waiting.values():
                answer.set_result(None)
