"""A process whose clock is wrong: all that Python offers tells another time of day; monotonic time stays.

``CHAOS_CLOCK`` says how wrong, in seconds: ``60`` for every process, or by role: ``handle=60,send=-60``.
"""

from __future__ import annotations

import os
import time

import time_machine
from django.conf import settings

ROLES = ("web", "handle", "send", "sweep")


def seconds_of(words: str, role: str) -> int:
    """How far ahead the clock of a ``role`` is; 0 where it is not named."""
    if "=" not in words:
        return int(words)
    return int(dict(word.split("=") for word in words.split(",")).get(role, 0))


def shift(words: str) -> None:
    """From now on the clock of this process is wrong. Written down in clocks.txt: seconds, role, pid.

    It replaces the C functions, and so reaches modules that have imported ``datetime`` or ``time`` already.
    """
    role = os.environ.get("WORKER_ROLE") or "web"
    seconds = seconds_of(words, role)
    time_machine.travel(time.time() + seconds, tick=True).start()
    ctime, asctime = time.ctime, time.asctime  # it leaves these alone
    time.ctime = lambda moment=None: ctime(time.time() if moment is None else moment)
    time.asctime = lambda moment=None: asctime(time.localtime() if moment is None else moment)
    with (settings.DATA_DIR / "clocks.txt").open("a") as file:
        file.write(f"{seconds} {role} {os.getpid()}\n")
