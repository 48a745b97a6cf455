"""Runs turns from standard input, each in a fork of its own, for ``conversations.trial``. Not for people."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand

from conversations import registry, turns


class Command(BaseCommand):
    help = "Runs turns, one JSON line each, in forked processes (used by workers for messages under suspicion)."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        answers = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a bot prints is not an answer
        registry.load_bots()
        for line in sys.stdin.buffer:
            os.write(answers, try_turn(line) + b"\n")


def try_turn(line: bytes) -> bytes:
    """One line's turn in a fork; its output as JSON, or what its end means."""
    task = msgspec.json.decode(line, type=turns.Task)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(settings.TURN_SECONDS) + 1)
        os.write(writing, msgspec.json.encode(turns.run(registry.find_bot(task.bot), task)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer if answer and status == 0 else _ended(task, status)


def _ended(task: turns.Task, status: int) -> bytes:
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    kind = "TurnTooLong" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "Crashed"
    output = turns.Output(error_type=kind, error_place=task.bot, error_text=f"its process ended with {how}")
    return msgspec.json.encode(output)
