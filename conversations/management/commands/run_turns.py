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
    """The child's end of ``isolated_turn.IsolatedTurns``.

    It has one thread: a fork copies no other.
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
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            request = msgspec.json.decode(line, type=TurnRequest)
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                run_alone(request, writing)
            os.close(writing)
            self._children[reading] = Child(request, pid, reading)
            self._selector.register(reading, selectors.EVENT_READ)

    def _read_answer(self, child: Child, data: bytes) -> None:
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
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def run_alone(request: TurnRequest, writing: int) -> None:
    """Run the turn in the fork and write its output to ``writing``. Never returns."""
    try:
        signal.setitimer(signal.ITIMER_REAL, settings.TURN_SECONDS)
        output = turns.run(registry.find_bot(request.task.bot), request.task)
        write_all(writing, msgspec.json.encode(output))
    except BaseException:
        os._exit(1)
    os._exit(0)


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def crash_output(request: TurnRequest, status: int) -> turns.Output:
    """Return the failed turn that a fork's end without an answer means.

    ``status``: from ``os.waitpid``.
    """
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    kind = "TurnTooLong" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "Crashed"
    return turns.Output(error_type=kind, error_place=request.task.bot, error_text=f"its process ended with {how}")
