"""Shows the supervisor that this process's threads run: a byte of shared memory that changes.

It says less than the heartbeat in the database, but it needs nothing outside this machine. A turn
that never gives up the interpreter's lock (a regular expression that takes for ever) stops this
thread with all others, and the supervisor replaces the process.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import time

from conversations.concurrency import vital_thread
from conversations.workers.supervisor import STACKS_SIGNAL

# Seconds between two changes. Longer: fewer wake-ups; shorter: a process with many busy threads has
# more chances to change it in time (``supervisor.REPLACE_SECONDS``).
PULSE_SECONDS = 0.5
STDERR = 2  # the descriptor: the supervisor reads it, whatever ``sys.stderr`` is by then


def start() -> None:
    """Start the pulse if a supervisor watches it.

    From then on ``STACKS_SIGNAL`` writes the stacks of the newest 100 threads to stderr: files,
    lines and names of functions, no values. C code does it, also while a thread keeps the lock.
    """
    descriptor = os.environ.get("PULSE_FD")
    if not descriptor:
        return
    memory = mmap.mmap(int(descriptor), 1)
    os.close(int(descriptor))  # what needs no descriptor goes on if a bot closes them all
    os.environ["PULSE_FD"] = ""
    faulthandler.register(STACKS_SIGNAL, file=STDERR)
    vital_thread("pulse", lambda: _beat(memory))


def _beat(memory: mmap.mmap) -> None:
    while True:
        memory[0] = memory[0] % 255 + 1  # never 0, which says that it has not begun
        time.sleep(PULSE_SECONDS)
