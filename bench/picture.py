"""Draws a run as SVG: rates side by side, and how far each target is met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from bench.cases import Target

WIDTH, LINE, LEFT, BAR = 900, 24, 470, 330
GOOD, BAD, PLAIN = "#2e7d32", "#c62828", "#546e7a"
RATES = (
    ("do-nothing view", "limit", "per_second"),
    ("ours, store only", "store", "per_second"),
    ("procrastinate, defer only", "queue", "store_per_second"),
    ("plain, store only", "plain", "store_per_second"),
    ("ours, end to end", "e2e", "per_second"),
    ("procrastinate, end to end", "queue", "per_second"),
    ("plain, end to end", "plain", "per_second"),
)


def picture(run: dict[str, Any], judged: Sequence[tuple[Target, float]]) -> str:
    """In the second part a bar is value / bound, or bound / value where more is better: up to the line it is met."""
    lines = [*rates(run), "", *targets(judged)]
    height = LINE * (len(lines) + 3)
    body = [f'<text x="10" y="20" font-weight="bold">{escape(title(run))}</text>']
    for place, line in enumerate(lines):
        body.append(f'<g transform="translate(0 {LINE * (place + 2)})">{line}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body) + "\n</svg>\n"
    )  # fmt: skip


def title(run: dict[str, Any]) -> str:
    versions = run["versions"]
    return (f"commit {run['commit']}, {run['date']} UTC, {run['machine']}, Python {versions['python']},"
            f" PostgreSQL {versions['postgres']}")  # fmt: skip


def rates(run: dict[str, Any]) -> Iterator[str]:
    cases = run["cases"]
    known = [(words, cases[case]["figures"][name]) for words, case, name in RATES if case in cases]
    most = max((rate for _, rate in known), default=1.0)
    yield words("messages a second")
    for name, rate in known:
        yield bar(name, f"{rate:,.0f}", rate / most, PLAIN)


def targets(judged: Sequence[tuple[Target, float]]) -> Iterator[str]:
    if judged:
        yield words("targets: met where the bar ends before the line")
    for target, value in judged:
        share = (target.bound / value if value else 9.0) if target.at_least else value / (target.bound or 1.0)
        colour = GOOD if target.met(value) else BAD
        shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        line = f'<line x1="{LEFT + BAR / 2}" x2="{LEFT + BAR / 2}" y1="-16" y2="8" stroke="black"/>'
        yield bar(target.words, f"{shown}{target.unit}", min(1.0, share / 2), colour) + line


def words(text: str) -> str:
    return f'<text x="10" font-weight="bold">{escape(text)}</text>'


def bar(name: str, value: str, share: float, colour: str) -> str:
    return (
        f'<text x="{LEFT - 8}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LEFT}" y="-12" width="{max(1.0, share * BAR):.1f}" height="16" fill="{colour}"/>'
        f'<text x="{LEFT + BAR + 8}">{escape(value)}</text>'
    )
