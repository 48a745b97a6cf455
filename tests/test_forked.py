"""The test kit's forked processes are like those that a command starts: environment, arguments, output, end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.kit import forked
from tests.kit.stack import Process, wait_until

ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(forked.ROOT), "SAID": "mine"}
MODULE = "tests.kit.says"


@pytest.mark.parametrize(("words", "code"), [("leave 3", 3), ("leave", 0), ("fail", 1), ("die", -signal.SIGKILL)])
def test_its_end_is_what_a_commands_would_be(words: str, code: int) -> None:
    command = [sys.executable, "-m", MODULE, *words.split()]
    done = forked.server().run(command, ENV)
    assert (done.returncode, done.stdout) == (code, f"mine {words}\n")
    assert ("RuntimeError: as told" in done.stderr) == (words == "fail")


def test_it_shows_its_own_command_and_environment_and_dies_with_its_group(tmp_path: Path) -> None:
    process = Process("says", [sys.executable, "-m", MODULE, "wait"], ENV, tmp_path / "log", forks=True)
    process.start()
    wait_until(lambda: (tmp_path / "log").read_text() == "mine wait\n", 10, "it has begun")
    seen = psutil.Process(process.pid)
    assert [word for word in seen.cmdline() if word] == process.command
    assert seen.environ() == ENV
    assert process.alive()
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert not process.alive()
