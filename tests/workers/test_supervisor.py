"""The supervisor, as a process of its own: what it starts, restarts, prints and stops."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from conversations.workers import supervisor
from conversations.workers.supervisor import Child, Command, LineWriter, Supervisor
from tests.kit.stack import ROOT

FOR_EVER = "import time\nwhile True: time.sleep(0.1)"


def start(**programs: str) -> subprocess.Popen[str]:
    commands = [{"name": name, "argv": [sys.executable, "-uc", code]} for name, code in programs.items()]
    argv = [sys.executable, "-I", supervisor.__file__, json.dumps(commands)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> list[str]:
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    return output.splitlines()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lines_carry_names_and_no_colour_when_piped() -> None:
    process = start(a="print('one')\n" + FOR_EVER, longer="import sys; print('two', file=sys.stderr)\n" + FOR_EVER)
    assert process.stdout
    begun = {process.stdout.readline(), process.stdout.readline()}
    end(process)
    assert begun == {"a      | one\n", "longer | two\n"}


def test_what_dies_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    mark = f"open({str(tmp_path / 'mark')!r}, 'a').write('x')"
    process = start(dies=mark, stays="print('here')\n" + FOR_EVER)
    wait_until(lambda: (tmp_path / "mark").exists() and len((tmp_path / "mark").read_text()) >= 3)
    lines = end(process)
    assert [line for line in lines if line == "stays | here"] == ["stays | here"]
    assert "dies  | * ended with code 0; starting it again" in lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_passes_one_sigterm_and_hears_the_last_words(number: int) -> None:
    code = """
import signal, time
count = 0
def stop(number, frame):
    global count
    count += 1
signal.signal(signal.SIGTERM, stop)
print('ready')
while not count: time.sleep(0.05)
time.sleep(1)
print('asked', count)
"""
    process = start(a=code)
    assert process.stdout
    process.stdout.readline()
    process.send_signal(number)
    time.sleep(0.3)
    assert "a | asked 1" in end(process, number)
    assert process.returncode == 0


def test_who_does_not_go_is_killed() -> None:
    stubborn = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    output = io.BytesIO()
    command = Command(name="a", argv=[sys.executable, "-c", stubborn])
    subject = Supervisor([command], stream=output, stop_seconds=0.5)
    threading.Timer(1.0, subject.stop).start()
    begun = time.monotonic()
    assert subject.run() == 1
    assert time.monotonic() - begun < 4
    assert b"killed by SIGKILL" in output.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_children_die_with_a_killed_supervisor() -> None:
    process = start(a="import os; print(os.getpid())\n" + FOR_EVER)
    assert process.stdout
    pid = int(process.stdout.readline().split("|")[1])
    process.kill()
    process.wait()
    wait_until(lambda: not alive(pid))


def test_a_program_that_is_missing_does_not_stop_the_others() -> None:
    commands = [
        {"name": "gone", "argv": ["/does/not/exist"]},
        {"name": "here", "argv": [sys.executable, "-uc", "print('yes')\n" + FOR_EVER]},
    ]
    argv = [sys.executable, "-I", supervisor.__file__, json.dumps(commands)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    lines = end(process)
    assert "here | yes" in lines
    assert any(line.startswith("gone | * cannot start") for line in lines)


def test_a_slow_reader_loses_nothing_and_stalls_nobody(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = f"for n in range(50_000): print(n, 'x' * 20)\nopen({str(done)!r}, 'w').close()\n" + FOR_EVER
    process = start(a=code)
    wait_until(done.exists)  # a megabyte, while nobody reads: more than any pipe holds
    lines = end(process)
    assert [line.split()[2] for line in lines[:50_000]] == [str(n) for n in range(50_000)]


def test_a_reader_that_went_away_does_not_stop_the_work() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = LineWriter(os.fdopen(write, "wb", buffering=0))
    writer.write(b"into the void\n")
    writer.close(timeout_seconds=5)


# ---------------------------------------------------------------- processes that stand still

# A thread of the first process holds the interpreter's lock, for ever or for a while; the second one only lives.
HOLDS = """
import ctypes, pathlib, re, signal, sys, threading, time
from conversations.workers import pulse
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
pulse.PULSE_SECONDS = 0.05
pulse.start()
def hold_for_ever(): re.match("(a+)+$", "a" * 60 + "!")
def hold_for_a_while(): ctypes.PyDLL(None).sleep(2)
mark = pathlib.Path(sys.argv[1])
if not mark.exists():
    mark.touch()
    time.sleep(0.3)
    threading.Thread(target=globals()[sys.argv[2]], daemon=True).start()
    time.sleep(60)
print("lives", flush=True)
time.sleep(60)
"""
IGNORES = ["sh", "-c", "trap '' USR2 TERM; echo on; exec sleep 60"]


class Log(io.BytesIO):
    """What a supervisor wrote. ``complete``: all of ``words`` are in it."""

    def __init__(self, *words: bytes) -> None:
        super().__init__()
        self.words = words
        self.complete = threading.Event()

    def flush(self) -> None:
        if all(word in self.getvalue() for word in self.words):
            self.complete.set()


@pytest.mark.parametrize(("hold", "end", "kill_seconds"), [
    ("hold_for_ever", b"killed by SIGKILL", 1.2), ("hold_for_a_while", b"told to stop", 60.0),
])  # fmt: skip
def test_another_process_starts_beside_one_that_stands_still(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hold: str, end: bytes, kill_seconds: float
) -> None:
    monkeypatch.setattr(supervisor, "REPLACE_SECONDS", 0.5)
    monkeypatch.setattr(supervisor, "KILL_SECONDS", kill_seconds)
    monkeypatch.chdir(ROOT)
    log = Log(b"stands still; its threads:", b"another process takes its place", b"in " + hold.encode(), b"lives", end)
    command = Command(name="a", argv=[sys.executable, "-c", HOLDS, str(tmp_path / "mark"), hold])
    subject = Supervisor([command], stream=log)
    threading.Thread(target=lambda: (log.complete.wait(20), subject.stop())).start()
    subject.run()
    assert log.complete.is_set(), log.getvalue().decode()
    assert (b"is killed" in log.getvalue()) == (hold == "hold_for_ever")
    assert b"starting it again" not in log.getvalue()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """A child whose processes have begun their pulse, and show none since."""
    start = Child.start

    def start_silent(child: Child) -> BinaryIO:
        stream = start(child)
        assert stream.readline() == b"on\n"
        assert child.run
        child.run._pulse[0] = 1
        child.run.look(0.0)
        return stream

    monkeypatch.setattr(Child, "start", start_silent)
    child = Child(Command(name="a", argv=IGNORES), b"")
    child.start()
    yield child
    child.kill()
    wait_until(lambda: not [*child.reap(restarts=False)] and not child.runs())


def test_a_supervisor_that_stood_still_itself_kills_nobody(silent: Child) -> None:
    subject = Supervisor([silent.command], stream=io.BytesIO())
    subject._children, subject._looked_at = [silent], time.monotonic() - 3600
    subject._turn()
    assert silent.run
    assert silent.run.silent_seconds <= supervisor.LOOK_SECONDS


def test_a_process_that_somebody_stopped_is_left_alone(silent: Child) -> None:
    assert silent.run
    os.kill(silent.run.process.pid, signal.SIGSTOP)
    wait_until(silent.run._stopped)
    assert [text for _ in range(30) for text in silent.watch(1.0)] == []


def test_neither_a_long_start_nor_a_program_without_a_pulse_is_a_silence(silent: Child) -> None:
    assert silent.run
    silent.run._pulse[0] = silent.run._last_pulse = 0
    assert [text for _ in range(30) for text in silent.watch(1.0)] == []


def test_of_many_that_stand_still_one_at_a_time_has_another_beside_it(silent: Child) -> None:
    pids, kills = [silent.runs()[0].process.pid], 0
    for _ in range(40):
        texts = [*silent.watch(1.0)]
        if killed := [text for text in texts if "is killed" in text]:
            assert killed == [f"process {pids[kills]} has stood still for 10 s, and is killed"]
            kills += 1
            wait_until(lambda: bool([*silent.reap(restarts=True)]))
        if silent.run is None:
            silent.start()
            pids.append(silent.run.process.pid)
        assert len(silent.runs()) <= 2
    assert kills >= 4


def test_one_that_takes_a_living_process_place_is_told_of_no_death(silent: Child) -> None:
    """The one that died before has long been recovered, and another process may have its number by now."""
    silent.predecessor = {"PREDECESSOR_PID": "1"}
    assert "another process takes its place" in [text for _ in range(4) for text in silent.watch(1.0)]
    assert silent.predecessor == {"PREDECESSOR_PID": ""}
    silent.start()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
