"""Runs each turn from standard input in a fork of its own.

Started by ``handling.isolated_turn``, not by people.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand

from conversations import registry, turns
from conversations.handling.isolated_turn import TurnRequest, TurnResult
from conversations.telemetry import logs

# Most bytes of one read. Larger: fewer reads of a long request, more memory.
READ_BYTES = 1 << 20


class Command(BaseCommand):
    help = "Runs turns, one JSON line each, in forked processes (workers use it for messages that may crash them)."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        answers = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a bot prints is not an answer
        # Hosts send SIGTERM to every process at once: our worker decides when we end, by closing
        # our standard input.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        registry.load_bots()
        ForkServer(answers).run()


class Child:
    """A fork that runs one turn, and the part of its answer that was read so far."""

    def __init__(self, request: TurnRequest, pid: int, pipe: int) -> None:
        self.request, self.pid, self.pipe = request, pid, pipe
        self.answer = b""


class ForkServer:
    """Runs turns for ``isolated_turn.IsolatedTurns``, which sends requests to its standard input.

    It has one thread, because a fork copies no other: a lock that one held would stay locked.
    """

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._rest = b""
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)

    def run(self) -> None:
        """Fork for each request until the worker closes our standard input; then kill forks."""
        while True:
            for key, _ in self._selector.select():
                data = os.read(key.fd, READ_BYTES)
                if key.fd in self._children:
                    self._read_answer(self._children[key.fd], data)
                elif data:
                    self._begin(data)
                else:
                    self._end()
                    return

    def _begin(self, data: bytes) -> None:
        """Fork a child for each whole line that was read; keep the rest of the last one."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            request = msgspec.json.decode(line, type=TurnRequest)
            read_end, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                run_in_child(request, write_end)
            os.close(write_end)
            self._children[read_end] = Child(request, pid, read_end)
            self._selector.register(read_end, selectors.EVENT_READ)

    def _read_answer(self, child: Child, data: bytes) -> None:
        """Collect a child's output.

        When it has closed its pipe, report the turn's result to the worker.
        """
        child.answer += data
        if data:
            return
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        del self._children[child.pipe]
        _, status = os.waitpid(child.pid, 0)
        if child.answer and status == 0:
            output = msgspec.json.decode(child.answer, type=turns.Output)
        else:
            output = crash_output(child.request, status)
        write_all(self._answers, msgspec.json.encode(TurnResult(id=child.request.id, output=output)) + b"\n")

    def _end(self) -> None:
        """Kill the children: without the worker nobody could use their results."""
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def run_in_child(request: TurnRequest, write_end: int) -> None:
    """Run the turn in this forked child and write its output to the pipe ``write_end``.

    Never returns. SIGALRM ends a turn that takes longer than TURN_SECONDS. ``os._exit`` skips
    the cleanup that belongs to the parent, which reports any other exit code than 0 as a crash.
    """
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, settings.TURN_SECONDS)
        output = turns.run(registry.find_bot(request.task.bot), request.task)
        write_all(write_end, msgspec.json.encode(output))
        signal.setitimer(signal.ITIMER_REAL, 0)  # it ended in time, however long its lines take
        code = 0
    finally:
        logs.flush()
        os._exit(code)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``: a pipe may take only a part at once."""
    while data:
        data = data[os.write(descriptor, data) :]


def crash_output(request: TurnRequest, status: int) -> turns.Output:
    """Return a failed turn for a child that ended without an answer.

    ``status`` is that of ``os.waitpid``. SIGALRM means that the turn took too long.
    """
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    kind = "TurnTooLong" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "Crashed"
    return turns.Output(error_type=kind, error_place=request.task.bot, error_text=f"its process ended with {how}")
