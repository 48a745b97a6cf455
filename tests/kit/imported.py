"""An app for EXTRA_APPS: a worker that is told to stop writes down, before it does, which modules it has imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from celery.signals import worker_shutting_down
from django.apps import AppConfig
from django.conf import settings

APP = f"{__name__}.Imported"


def written(folder: Path, role: str) -> Path:
    return folder / f"imported-by-{role}"


class Imported(AppConfig):
    name = "tests.kit"

    def ready(self) -> None:
        """Connected before the core's own handler, which ends the process."""
        worker_shutting_down.connect(_write)


def _write(**kwargs: Any) -> None:
    path = written(settings.DATA_DIR, settings.WORKER_ROLE)
    path.with_suffix(".part").write_text("\n".join(sorted(sys.modules)))
    path.with_suffix(".part").rename(path)  # whoever finds it finds all of it
