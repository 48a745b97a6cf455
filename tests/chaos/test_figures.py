"""From when on a run was as usual again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.evidence import Evidence
from tests.chaos.figures import as_usual_again, percentiles, usual
from tests.chaos.history import History
from tests.chaos.run import Run

CALM = [(float(at), 0.1 + at / 1000) for at in range(100)]  # up to 0.199 s


def test_usual_is_the_p99_of_what_came_before() -> None:
    assert usual([*CALM, (100.0, 9.0)], until=100.0) == pytest.approx(0.199)
    assert usual(CALM, until=0.0) is None


@pytest.mark.parametrize(("waits", "seconds"), [
    ([], None),
    ([(10.0, 0.1), (12.0, 0.1)], 0.0),
    ([(10.0, 5.0), (11.0, 0.4), (12.0, 0.1), (13.0, 0.29)], 2.0),
    ([(10.0, 0.1), (13.0, 5.0)], None),
    ([(9.0, 5.0), (11.0, 0.1), (19.8, 5.0), (30.0, 5.0)], 0.0),
    ([*((10.0 + n / 4, 5.0) for n in range(4)), *((11.0 + n / 100, 0.1) for n in range(200))], 0.5),
], ids=["nothing", "at once", "after two slow ones", "never", "before and after do not count",
        "two of 202 may"])  # fmt: skip
def test_it_is_as_usual_when_hardly_any_takes_longer(waits: list[tuple[float, float]], seconds: float | None) -> None:
    assert as_usual_again(waits, healed=10.0, until=20.0, p99=0.2) == pytest.approx(seconds)


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles([]) == {}
    assert percentiles([3.0, 1.0, 2.0]) == {"median": 2.0, "p95": 3.0, "max": 3.0}


def test_a_run_without_faults_has_figures_too(tmp_path: Path) -> None:
    run = Run(1, [], tmp_path / "run.json", length="scaled", crowd=1, env={}, calm_seconds=0, drain_seconds=1)
    run.history = History(tmp_path / "history.jsonl")
    run.warm = run.history.began.t
    message = {"id": 1, "ch": "keep", "u": "keep-1", "status": "handled"}
    received = run.history.began.w / 1e9 + 1.0
    rows = {"messages": [{**message, "received": received, "settled": received + 0.5}], "replies": []}
    seen = Evidence(run="r", began=run.history.began, events=[], rows=rows, calls=[])
    run.generator = type("Nobody", (), {"name_user": lambda *_: "nobody"})()
    assert run._faults(seen) == {"usual_p99_s": pytest.approx(0.5), "faults": []}
    run.history.close()
