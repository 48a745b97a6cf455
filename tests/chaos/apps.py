"""The checker's bots as a Django app, and the place where a planted bug gets into every process."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import FrameType

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    name = "tests.chaos"

    def ready(self) -> None:
        if os.environ.get("CHAOS_READS"):
            threading.Thread(target=_count_reads, name="count-reads", daemon=True).start()
        planted = os.environ.get("CHAOS_MUTANT", "")
        if planted:
            from tests.chaos import mutants

            mutants.apply(planted)
        if words := os.environ.get("CHAOS_CLOCK"):
            from tests.chaos import clock

            clock.shift(words)


def _count_reads() -> None:
    """Write down, twice a second, how many threads of this process wait for a body."""
    with open(f"{os.environ['DATA_DIR']}/reads-{os.getpid()}.txt", "w", buffering=1) as file:
        while True:
            file.write(f"{sum(map(_reads_a_body, sys._current_frames().values()))}\n")
            time.sleep(0.5)


def _reads_a_body(frame: FrameType | None) -> bool:
    while frame and not frame.f_code.co_filename.endswith("/webhooks/body.py"):
        frame = frame.f_back
    return frame is not None
