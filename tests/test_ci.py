"""`.ci/run`: which of its parts may run a second time, and which never."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.stack import ROOT

# Stands for python and make: writes down how it was called, and ends the smoke faults with the next code.
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>calls
case "$*" in
    *"tests.chaos smoke"*) code=$(head -n 1 codes); sed -i 1d codes; exit "$code" ;;
    *bench-short*) exit "$BENCH_CODE" ;;
    *) echo "1 passed" ;;
esac
"""


@pytest.mark.parametrize(("smoke", "bench", "smokes", "code"), [
    ("0", "0", 1, 0),
    ("1", "0", 1, 1),  # a promise was broken
    ("2 0", "0", 2, 0),  # not enough was proven
    ("2 1", "0", 2, 1),
    ("2 2", "0", 2, 1),
    ("0", "1", 1, 1),  # the bench found a reply missing, doubled or out of order
])  # fmt: skip
def test_only_what_proved_too_little_runs_again(smoke: str, bench: str, smokes: int, code: int, tmp_path: Path) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    for name in ("python", "make", "chromium", "apt-get", "sudo"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    (tmp_path / "codes").write_text("\n".join(smoke.split()) + "\n")
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "BENCH_CODE": bench}
    done = subprocess.run(["sh", str(tmp_path / ".ci" / "run")], env=env, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert done.returncode == code, done.stdout + done.stderr
    assert sum("tests.chaos smoke" in call for call in calls) == smokes
    assert sum("bench-short" in call for call in calls) == 1
    assert sum("make test" in call for call in calls) == 1
    assert not [call for call in calls if "rerun" in call]
