"""The checker's bots as a Django app, and the place where a planted bug gets into every process."""

from __future__ import annotations

import os
import sys
import threading
import time

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
            codes = [frame.f_code for frame in sys._current_frames().values()]
            reads = [
                code for code in codes if code.co_name in ("_chunk", "read") and "/webhooks/body" in code.co_filename
            ]
            file.write(f"{len(reads)}\n")
            time.sleep(0.5)
