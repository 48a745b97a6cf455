"""A process whose clock is wrong: what asks for the time of day gets another one; monotonic time stays."""

from __future__ import annotations

import datetime as dt
import os
import time

from django.conf import settings
from django.utils import timezone


def shift(seconds: int) -> None:
    """From now on it is ``seconds`` later, for ``time.time`` and Django's ``now``. Written down in clocks.txt."""
    real, real_ns, now = time.time, time.time_ns, timezone.now
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + seconds * 10**9
    timezone.now = lambda: now() + dt.timedelta(seconds=seconds)
    with (settings.DATA_DIR / "clocks.txt").open("a") as file:
        file.write(f"{seconds} {os.getpid()}\n")
