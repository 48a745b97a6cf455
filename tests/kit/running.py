"""Real processes of the product, with their output kept in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.kit.stack import ROOT, SLACK


@contextlib.contextmanager
def running(arguments: list[str], environment: Mapping[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("ab") as file:
        env = dict(environment)
        process = subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(25)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def workers(environment: Mapping[str, str], output: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return running([sys.executable, "manage.py", "run_worker"], environment, output)


@contextlib.contextmanager
def web(environment: Mapping[str, str], output: Path) -> Iterator[str]:
    port = free_port()
    arguments = ["-m", "granian", "--interface", "wsgi", "--port", str(port), "--blocking-threads", "8", "--http", "1"]
    with running([sys.executable, *arguments, "botproject.wsgi:application"], environment, output):
        url = f"http://127.0.0.1:{port}"
        until(lambda: status(f"{url}/healthz/") == 200, 30)
        yield url


def manage(environment: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds * SLACK
    while not holds():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.1)
