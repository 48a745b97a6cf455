"""Worker processes that stop themselves at a failpoint, and go on when they are told to."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from tests.kit.stack import Process, Stack, state, wait_until


@contextlib.contextmanager
def process(stack: Stack, role: str, failpoint: str) -> Iterator[Process]:
    """A worker of one role with a failpoint."""
    worker = stack.start_workers(role, env={"FAILPOINTS": failpoint})
    try:
        wait_until(lambda: bool(set(worker.children(role)) & set(stack.pids(role))), 40, f"a {role} process")
        yield worker
    finally:
        worker.end()


def asleep(worker: Process, seconds: float = 20) -> int:
    """The child that stopped itself."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [pid for pid in worker.children() if state(pid) == "T"]
        return bool(found)

    wait_until(look, seconds, "a process stopped at its failpoint")
    return found[0]


def go_on(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
