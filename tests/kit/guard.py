"""End all that a test runner started when the runner ends, however it ends.

A runner (pytest, each of its xdist workers, the fault checker) calls ``watch_over_this_process``. It marks its
environment, which every process that it starts inherits, and starts a guard: this file as a process in a session of its
own. When the runner is no longer the guard's parent, it has ended. Then the guard kills what bears the mark, and the
descendants of that (Postgres and chromium overwrite the environment of theirs), until nothing is left.

PR_SET_PDEATHSIG would not do: it ends a process with the *thread* that started it, and reaches no grandchildren.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable

import psutil

LOOK_SECONDS = 0.1
GIVE_UP_SECONDS = 60.0  # a process that SIGKILL does not end hangs in the kernel


@functools.cache
def watch_over_this_process() -> None:
    """Start a guard for this process, once."""
    from botproject.local.processes import RUN_MARK

    mark = f"{RUN_MARK}_{os.getpid()}_{secrets.token_hex(8)}"
    os.environ[mark] = "1"
    command = [sys.executable, "-I", __file__, str(os.getpid()), mark]
    guard = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={}, start_new_session=True)
    guard.returncode = 0  # it outlives this process, and Popen need not warn that it does


def marked(mark: str) -> set[psutil.Process]:
    """Processes that bear the mark, and all that they started; without the dead."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if mark in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found |= {process, *process.children(recursive=True)}
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def main(runner: int, mark: str) -> None:
    while os.getppid() == runner:
        time.sleep(LOOK_SECONDS)
    end = time.monotonic() + GIVE_UP_SECONDS
    while (left := marked(mark)) and time.monotonic() < end:
        kill(left)
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
