"""Runs turns in processes of their own: a message under suspicion may crash there, and only there.

A clean process is started once (``manage.py run_turns``) and forks for every trial, so that a trial takes
milliseconds, not the second that importing a project takes. Trials run one at a time; one that lasts lets
the next begin, so that the suspects of a busy worker don't wait for each other's slow calls.
"""

from __future__ import annotations

import itertools
import queue
import subprocess
import sys
import threading

import msgspec
import structlog
from django.conf import settings

from conversations import turns
from conversations.contracts import Struct

log = structlog.get_logger(__name__)

AT_ONCE = 8
ALONE_SECONDS = 0.1  # a crash comes early; what lasts longer is waiting for somebody
START_SECONDS = 30.0


class Trial(Struct, frozen=True):
    """A line to the nursery."""

    id: int
    task: turns.Task


class Ended(Struct, frozen=True):
    """A line from the nursery."""

    id: int
    output: turns.Output


Answers = queue.SimpleQueue[turns.Output | None]

_alone = threading.Lock()
_starting = threading.Lock()
_nursery: Nursery | None = None


def run(task: turns.Task) -> turns.Output | None:
    """The turn's output; a crash, or no end in time, is its failure. None: the trial itself failed: nobody's."""
    with _alone:
        nursery = _running()
        answers = nursery.begin(task)
        output = _answer(answers, ALONE_SECONDS)
    if output is _NOT_YET:
        output = _answer(answers, settings.TURN_SECONDS + START_SECONDS)
    if output is _NOT_YET:
        nursery.kill()
        return None
    return output


_NOT_YET = turns.Output(error_type="NotYet")


def _answer(answers: Answers, seconds: float) -> turns.Output | None:
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return _NOT_YET


def _running() -> Nursery:
    global _nursery
    with _starting:
        if _nursery is None or _nursery.ended.is_set():
            _nursery = Nursery()
        return _nursery


class Nursery:
    """The clean process, and who waits for which of its answers."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[int, Answers] = {}
        command = [sys.executable, "-m", "django", "run_turns"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, name="nursery", daemon=True).start()

    def begin(self, task: turns.Task) -> Answers:
        answers: Answers = queue.SimpleQueue()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = answers
            try:
                self._process.stdin.write(msgspec.json.encode(Trial(id=number, task=task)) + b"\n")
                self._process.stdin.flush()
            except OSError:
                self.ended.set()
                answers.put(None)
        return answers

    def kill(self) -> None:
        self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            ended = msgspec.json.decode(line, type=Ended)
            with self._lock:
                self._waiting.pop(ended.id).put(ended.output)
        log.warning("trials ended", code=self._process.wait())
        with self._lock:
            self.ended.set()
            for answers in self._waiting.values():
                answers.put(None)
