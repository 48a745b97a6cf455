"""The web server's start: what it refuses, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.kit.running import free_port

ROOT = Path(__file__).resolve().parents[2]


def start_web(tmp_path: Path, respawn_seconds: str) -> subprocess.CompletedProcess[str]:
    """The Procfile's command without any setting; ends by itself, or the test fails."""
    command = next(line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("web:"))
    before, after = "--respawn-interval 0.5", f"--respawn-interval {respawn_seconds}"
    command = command.removeprefix("web: python").replace(before, after)
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "PORT": str(free_port())}
    shell = ["/bin/sh", "-c", f"exec {sys.executable} {command}"]
    return subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_web_process_without_settings_ends_and_says_why(tmp_path: Path) -> None:
    """Also on a slow machine: granian itself gives up only on workers that die within 5.5 s."""
    ended = start_web(tmp_path, respawn_seconds="6")
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert said.count("SECRET_KEY is not set") == 1
    assert "the web server cannot start" in said


def test_the_web_server_does_not_warn_of_threads_that_we_chose(tmp_path: Path) -> None:
    ended = start_web(tmp_path, respawn_seconds="6")
    assert "Python threads" not in ended.stdout + ended.stderr
