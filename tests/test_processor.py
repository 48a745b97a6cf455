"""Whether processor time is left: the figures compared, and the real machine with and without work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from conversations import processor
from conversations.processor import Reading
from tests.kit.stack import wait_until


@pytest.mark.parametrize(("now", "short"), [
    pytest.param(Reading(at=1, idle=50, total=100), False, id="half of the time was idle"),
    pytest.param(Reading(at=1, idle=9, total=100), True, id="hardly any"),
    pytest.param(Reading(at=1, idle=10, total=100), False, id="just enough"),
    pytest.param(Reading(at=1, idle=90, total=100, stops=1), True, id="the quota was used up"),
    pytest.param(Reading(at=60, idle=0, total=9_000, stops=7), False, id="the last reading is too old"),
    pytest.param(Reading(at=1), False, id="a system that tells nothing"),
])  # fmt: skip
def test_the_processor_is_short_when_hardly_ever_idle_or_with_its_quota_used_up(now: Reading, short: bool) -> None:
    assert processor.compared(Reading(at=0), now) is short


def test_the_processor_is_short_while_every_core_works() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        wait_until(processor.is_short, 60, "no time is left")
        assert processor.rest_seconds() > 0
    finally:
        for each in busy:
            each.kill()
            each.wait()


def test_what_was_idle_is_what_others_read() -> None:
    """Whether time is left afterwards depends on what else runs here, so the counters are compared instead."""
    usable = os.sched_getaffinity(0)
    earlier, (idle, total), later = psutil.cpu_times(percpu=True), processor._ticks(), psutil.cpu_times(percpu=True)
    for ours, attribute in ((idle, lambda each: each.idle + each.iowait), (total, lambda each: sum(each[:8]))):
        least, most = (100 * sum(attribute(each[number]) for number in usable) for each in (earlier, later))
        assert least - 1 <= ours <= most + 1


@pytest.mark.parametrize("words", ["", "nr_throttled", "nr_throttled many", "\xff"])
def test_a_file_that_says_something_else_says_nothing(words: str, tmp_path: Path, monkeypatch: Any) -> None:
    """An error here would end the thread that writes, and then its process, again and again."""
    (tmp_path / "cpu.stat").write_bytes(words.encode("latin-1"))
    monkeypatch.setattr(processor, "_quota", lambda: tmp_path / "cpu.stat")
    assert processor._stops() == 0
