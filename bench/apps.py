"""Runs in the measured workers: writes to a file every second how many conversations each task carries.

With BENCH_PROBES it also wraps what ``bench.probes`` names, in the web processes too.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from celery.signals import task_prerun
from django.apps import AppConfig

from bench.probes import wrap_all

_counts: Counter[str] = Counter()


class Bench(AppConfig):
    name = "bench"

    def ready(self) -> None:
        if os.environ.get("WORKER_ROLE"):
            task_prerun.connect(count)
            threading.Thread(target=write, name="bench", daemon=True).start()
        if os.environ.get("BENCH_PROBES"):
            wrap_all()


def count(task: Any, args: Any, **_: Any) -> None:
    _counts[f"{task.name} tasks"] += 1
    _counts[f"{task.name} ids"] += len(args[0]) if args else 0


def write() -> None:
    path = Path(os.environ["DATA_DIR"]) / f"tasks-{os.getpid()}.json"
    while True:
        time.sleep(1)
        path.write_text(json.dumps(_counts))
