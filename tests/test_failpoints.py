"""Failpoints: where they are, that production cannot switch them on, and a start that fails."""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conversations import failpoints
from conversations.workers import lifecycle
from tests.chaos.points import POINTS

ROOT = Path(__file__).resolve().parents[1]
READ = "import django; django.setup(); from conversations import failpoints; print(sorted(failpoints._points))"


def points_of(**environment: str) -> str:
    """The points that a process with this environment would act on."""
    env = {name: value for name, value in os.environ.items() if name not in ("LOCAL", "FAILPOINTS")}
    env |= {"DJANGO_SETTINGS_MODULE": "botproject.settings", "FAILPOINTS": "T4=kill", **environment}
    done = subprocess.run([sys.executable, "-c", READ], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_failpoints_are_read_only_where_everything_is_local() -> None:
    assert points_of(LOCAL="1") == "['T4']"
    assert points_of() == points_of(LOCAL="0") == "[]"


def test_every_failpoint_is_in_one_place_and_is_told_about() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "conversations").rglob("*.py")))
    places = collections.Counter(re.findall(r'(?:failpoint\(|point=)"(\w\d)"', code))
    assert places.keys() >= POINTS.keys()
    assert {point for point, count in places.items() if count > 1} == {"M1"}  # in migrations; when a process starts
    assert [point for point in places if f" {point}  " not in (failpoints.__doc__ or "")] == []


def test_a_worker_that_cannot_begin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery would go on: a process that takes wakes and can do nothing with them."""

    def fail(kind: str) -> None:
        raise RuntimeError("no thread could be started")

    monkeypatch.setattr(lifecycle, "start", fail)
    with pytest.raises(SystemExit):
        lifecycle._begin()
