"""The shim that gives a process another time of day reaches everything that Python offers."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from datetime import datetime as imported
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from tests.chaos import clock

# Ways to ask for the time of day, as seconds since 1970.
WAYS: dict[str, Callable[[], float]] = {
    "time": lambda: time.time(),
    "time_ns": lambda: time.time_ns() / 1e9,
    "gmtime": lambda: datetime.datetime(*time.gmtime()[:6], tzinfo=datetime.UTC).timestamp(),
    "localtime": lambda: time.mktime(time.localtime()),
    "strftime": lambda: float(time.strftime("%s")),
    "ctime": lambda: datetime.datetime.strptime(time.ctime(), "%a %b %d %H:%M:%S %Y").timestamp(),
    "asctime": lambda: datetime.datetime.strptime(time.asctime(), "%a %b %d %H:%M:%S %Y").timestamp(),
    "clock_gettime": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "clock_gettime_ns": lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) / 1e9,
    "datetime.now": lambda: datetime.datetime.now().timestamp(),
    "an imported datetime": lambda: imported.now(datetime.UTC).timestamp(),
    "utcnow": lambda: imported.utcnow().replace(tzinfo=datetime.UTC).timestamp(),
    "datetime.today": lambda: imported.today().timestamp(),
    "date.today": lambda: imported.combine(date.today(), imported.now().time()).timestamp(),
    "django": lambda: timezone.now().timestamp(),
}


@pytest.fixture
def two_days_ahead(settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    settings.DATA_DIR = tmp_path
    monkeypatch.setenv("WORKER_ROLE", "send")
    began: list[time_machine.travel] = []
    for name in ("ctime", "asctime"):
        monkeypatch.setattr(time, name, getattr(time, name))  # restored afterwards
    start = time_machine.travel.start
    monkeypatch.setattr(time_machine.travel, "start", lambda self: (began.append(self), start(self))[1])
    clock.shift("handle=60,send=172800")
    yield tmp_path
    began[0].stop()


def test_everything_that_python_offers_is_shifted_and_monotonic_time_is_not(two_days_ahead: Any) -> None:
    real = float(subprocess.check_output([sys.executable, "-c", "import time; print(time.time())"]))
    wrong = {name: ask() - real for name, ask in WAYS.items() if abs(ask() - real - 172_800) > 10}
    assert not wrong
    assert abs(time.clock_gettime(time.CLOCK_MONOTONIC) - time.monotonic()) < 1
    assert (two_days_ahead / "clocks.txt").read_text().startswith("172800 send ")


def test_a_role_that_is_not_named_has_the_right_time() -> None:
    assert [clock.seconds_of("handle=60,send=-60", role) for role in clock.ROLES] == [0, 60, -60, 0]
    assert clock.seconds_of("-1200", "web") == -1200
