"""Runs one turn in a process of its own: a message under suspicion may crash there, and only there.

A clean process is started once (``manage.py run_turns``) and forks for every trial, so that a trial takes
milliseconds, not the second that importing a project takes.
"""

from __future__ import annotations

import selectors
import subprocess
import sys
import threading

import msgspec
from django.conf import settings

from conversations import turns

START_SECONDS = 30.0

_lock = threading.Lock()
_nursery: subprocess.Popen[bytes] | None = None


def run(task: turns.Task) -> turns.Output:
    """The turn's output; a crash, or no end in time, is its failure. One at a time per process."""
    with _lock:
        nursery = _running()
        assert nursery.stdin is not None
        try:
            nursery.stdin.write(msgspec.json.encode(task) + b"\n")
            nursery.stdin.flush()
            answer = _answer(nursery, settings.TURN_SECONDS + START_SECONDS)
        except OSError:
            answer = b""
        if not answer:
            nursery.kill()
            return turns.Output(error_type="Crashed", error_place=task.bot, error_text="the process of this turn ended without an answer")
        return msgspec.json.decode(answer, type=turns.Output)


def _running() -> subprocess.Popen[bytes]:
    global _nursery
    if _nursery is None or _nursery.poll() is not None:
        command = [sys.executable, "-m", "django", "run_turns"]
        _nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return _nursery


def _answer(nursery: subprocess.Popen[bytes], seconds: float) -> bytes:
    assert nursery.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(nursery.stdout, selectors.EVENT_READ)
        return nursery.stdout.readline() if selector.select(seconds) else b""
