"""The page and the pictures that a run becomes."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from bench import report
from bench.cases import TARGETS
from bench.latency import RATES
from bench.picture import CURVES, LEFT, apart


def run() -> dict[str, Any]:
    """A run of the case ``latency`` alone."""
    table = {f"{rate:g}/s": {name: rate / 10 for name, _, _ in CURVES} for rate in RATES}
    figures = {"floor_all_at_10_ms": 13.4, "floor_all_at_100_ms": 4.0, "procrastinate_p50_ms": 6.0,
               "procrastinate_p99_ms": 11.0, "p50_floors_at_10": 2.9, "p50_floors_at_100": 3.1}  # fmt: skip
    case = {"figures": figures, "tables": table, "costs": {}, "faults": [], "notes": ["ours at 10/s: thrown away"]}
    versions = {"python": "3.11", "postgres": "18.6"}
    return {"commit": "c", "date": "d", "machine": "m", "versions": versions, "cases": {"latency": case}}


def test_the_page_judges_the_targets_of_the_cases_that_ran_and_says_what_was_thrown_away() -> None:
    page = list(report.page(run()))
    assert "| webhook to platform at 10/s, p50 | 2.9 floors | <= 3 floors | yes |" in page
    assert "| webhook to platform at 100/s, p50 | 3.1 floors | <= 3 floors | NO |" in page
    assert not any("at 400/s, p50 |" in line for line in page)
    assert "* ours at 10/s: thrown away" in page
    assert "**1 of 2 targets are met; not met:**" in page
    assert any(line.startswith("* webhook to platform at 100/s, p50 (3.1 floors instead of 3). A") for line in page)
    assert "It is 13.4 ms at 10/s, 4 ms at 100/s." in page
    assert "![Latency by rate](images/latency.svg)" in page


def test_no_label_of_the_pictures_is_cut_or_covers_another() -> None:
    assert max(len(target.words) for target in TARGETS) * 7.5 < LEFT - 8, "7.5 px is a letter of the widest font"
    crowded = [(148.1, "b", ""), (153.5, "c", ""), (40.0, "a", "")]
    heights = [at for at, _, _ in apart(crowded)]
    assert heights == [40.0, 148.1, 164.1]


def test_both_pictures_are_drawn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "IMAGES", tmp_path)
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    report.write_page(run())
    curves = ElementTree.parse(tmp_path / "latency.svg").getroot()
    lines = curves.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [len(RATES)] * len(CURVES)
    ElementTree.parse(tmp_path / "benchmarks.svg")
