"""docs/reliability.md is what the generator makes of the figures beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos import report

RUN = {
    "commit": "abc", "seed": 1, "began": "2026-11-22T08:00:00+00:00", "seconds": 7200.0, "verdict": "PASS",
    "messages": 3100, "taken": 3000, "requests": 4000, "sent again": 900, "handled": 2990, "replies": 6000,
    "shown": 6001, "shown again": 1, "met": {"taken over": 7}, "slack": "bounds x 1.5 + 5 s", "violations": [],
    "faults": [
        {"name": "F10", "title": "restart", "bound_s": 20, "backlog_s": 6.0, "answered_s": 0.1, "hit": True},
        {"name": "F2", "title": "a host is gone", "bound_s": 15, "backlog_s": 4.0, "answered_s": 0.1, "hit": True},
        {"name": "F2", "title": "a host is gone", "bound_s": 15, "backlog_s": 8.0, "answered_s": 0.1, "hit": True},
        {"name": "F2", "title": "a host is gone", "bound_s": 15, "backlog_s": None, "answered_s": 0.1, "hit": True},
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "FOLDER", tmp_path / "kept")
    return tmp_path


def kept(folder: Path, name: str, **figures: object) -> list[str]:
    path = folder / f"20261122-080000-{name}.json"
    path.write_text(json.dumps({**RUN, **figures}))
    report.keep(path)
    return [summary["file"] for summary in report.read(report.FOLDER)]


def test_the_committed_page_is_what_the_generator_makes_of_the_committed_figures() -> None:
    assert report.page(report.read()) == report.PAGE.read_text()


def test_a_run_replaces_those_of_its_name_from_other_commits(folder: Path) -> None:
    kept(folder, "all")
    assert kept(folder, "all", seed=2) == ["all-1.json", "all-2.json"]
    assert kept(folder, "smoke") == ["all-1.json", "all-2.json", "smoke-1.json"]
    assert kept(folder, "all", seed=3, commit="def") == ["all-3.json", "smoke-1.json"]


def test_figures_are_counted_bounded_and_sorted(folder: Path) -> None:
    kept(folder, "all")
    words = report.page(report.read(report.FOLDER))
    assert "3,000 messages were answered 2xx and 6,000 replies delivered through 4 faults, in 2.0 hours" in words
    assert "fewer than 1 of 1,000, a reply in fewer than 1 of 2,000" in words
    assert "| F2 | a host is gone | 2 | 6.0 | 8.0 | 8.0 | 15 s |\n| F10 | restart | 1 |" in words


def test_the_report_shows_each_recovery_time_and_the_largest_values(folder: Path) -> None:
    fault = {**RUN["faults"][0], "committed_s": 0.5, "usual_s": 2.5}  # type: ignore[index]
    most = {"messages_waiting": 1200, "connections": 31}
    kept(folder, "all", faults=[fault, {**fault, "usual_s": None}], most=most, usual_p99_s=0.25)
    words = report.page(report.read(report.FOLDER))
    assert "| T2: until a turn is committed | 2 | 0.5 | 0.5 | 0.5 | 0 |" in words
    assert "before the first fault | 1 | 2.5 | 2.5 | 2.5 | 1 |" in words
    assert "| all | 1,200 | - | 31 | - | - | 0.25 |" in words


def test_a_run_that_failed_counts_for_nothing(folder: Path) -> None:
    kept(folder, "all", verdict="FAIL", violations=[{"invariant": "I1", "key": None, "words": "lost"}])
    words = report.page(report.read(report.FOLDER))
    assert "No run passed." in words
    assert "| FAIL |" in words
