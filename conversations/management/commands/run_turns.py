"""Runs turns from standard input, each in a fork of its own, for ``handling.isolated_turn``. Not for people."""

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
from conversations.handling.isolated_turn import Ended, Trial

READ_BYTES = 1 << 20


class Command(BaseCommand):
    help = "Runs turns, one JSON line each, in forked processes (used by workers for messages under suspicion)."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        answers = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a bot prints is not an answer
        # Hosts send SIGTERM to every process at once: our worker decides when we end, by closing our standard input.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        registry.load_bots()
        Nursery(answers).run()


class Child:
    """A fork with one turn, and what it has answered so far."""

    def __init__(self, trial: Trial, pid: int, pipe: int) -> None:
        self.trial, self.pid, self.pipe = trial, pid, pipe
        self.answer = b""


class Nursery:
    """One thread, so that a fork is a clean copy."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._rest = b""
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)

    def run(self) -> None:
        """Until our worker is gone; then nobody wants the answers of those who still run."""
        while True:
            for key, _ in self._selector.select():
                data = os.read(key.fd, READ_BYTES)
                if key.fd in self._children:
                    self._hear(self._children[key.fd], data)
                elif data:
                    self._begin(data)
                else:
                    self._end()
                    return

    def _begin(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            trial = msgspec.json.decode(line, type=Trial)
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                run_alone(trial, writing)
            os.close(writing)
            self._children[reading] = Child(trial, pid, reading)
            self._selector.register(reading, selectors.EVENT_READ)

    def _hear(self, child: Child, data: bytes) -> None:
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
            output = ended(child.trial, status)
        write_all(self._answers, msgspec.json.encode(Ended(id=child.trial.id, output=output)) + b"\n")

    def _end(self) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


def run_alone(trial: Trial, writing: int) -> None:
    """In the fork; never returns."""
    try:
        signal.setitimer(signal.ITIMER_REAL, settings.TURN_SECONDS)
        output = turns.run(registry.find_bot(trial.task.bot), trial.task)
        write_all(writing, msgspec.json.encode(output))
    except BaseException:
        os._exit(1)
    os._exit(0)


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def ended(trial: Trial, status: int) -> turns.Output:
    """What the end of a fork without an answer means."""
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    kind = "TurnTooLong" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "Crashed"
    return turns.Output(error_type=kind, error_place=trial.task.bot, error_text=f"its process ended with {how}")
