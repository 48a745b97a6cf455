"""`make check` without any server: its last command says its result and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_missing_migrations_are_looked_for_without_complaints_about_the_database() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    environment = re.search(r"^CHECK_ENV := (.*)$", makefile, re.M)
    line = re.search(r"^\t(.*makemigrations.*)$", makefile, re.M)
    assert environment
    assert line
    command = line[1].replace("$(CHECK_ENV)", environment[1]).replace("$(BIN)/python", sys.executable)
    ended = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "No changes detected\n", "")
