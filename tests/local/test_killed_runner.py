"""A test runner that is killed takes all with it that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import find_chromium
from tests.kit.stack import ROOT, wait_until

STARTED = {"postgres", "valkey-server", "granian", "supervisor.py", "celery", "guard.py"}


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["the runner", "its xdist worker"])
def test_servers_workers_and_the_browser_die_with_a_runner_that_is_killed(tmp_path: Path, killed: str) -> None:
    ready = tmp_path / "ready"
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "tests/local/never_ends.py"]
    with (tmp_path / "run.log").open("wb") as log:
        env = {**mine, "READY": str(ready)}
        run = subprocess.Popen([*command, "--max-worker-restart=0"], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        wait_until(ready.exists, 60, "the run has started everything")
        runner = psutil.Process(run.pid)
        begun = {each: " ".join(map(words, each.children(recursive=True))) for each in runner.children()}
        (worker,) = [each for each, commands in begun.items() if "granian" in commands]
        root = runner if killed == "the runner" else worker
        tree = [root, *root.children(recursive=True)]
        seen = " ".join(map(words, tree))
        missing = {name for name in STARTED if name not in seen}
        assert not missing
        assert not find_chromium() or "chrom" in seen
        stopped = next(process for process in tree if "celery" in words(process))
        stopped.suspend()
        root.kill()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not any(map(lives, tree)), 20, "all of it has ended")
        assert [words(process) for process in tree if lives(process)] == []
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
