"""Draws a run as SVG: rates side by side, how far each target is met, latencies by rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from bench.cases import Target

# In pixels. LEFT has room for the longest words of a target, in the widest font that browsers choose.
WIDTH, LINE, LEFT, BAR = 1040, 24, 660, 280
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
    height = LINE * (len(lines) + 4)
    body = [f'<text x="10" y="{20 + 20 * place}" font-weight="bold">{escape(line)}</text>'
            for place, line in enumerate(title(run))]  # fmt: skip
    for place, line in enumerate(lines):
        body.append(f'<g transform="translate(0 {LINE * (place + 3)})">{line}</g>')
    return svg(WIDTH, height, body)


def title(run: dict[str, Any]) -> tuple[str, str]:
    versions = run["versions"]
    commit = f"commit {run['commit']}, {run['date']} UTC"
    return f"{commit}, Python {versions['python']}, PostgreSQL {versions['postgres']}", run["machine"]


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


# ---------------------------------------------------------------- latencies by rate

WIDE, HIGH, EDGE, RIGHT = 900, 420, 60, 190  # both axes are logarithmic
CURVES = (
    ("platform_p99_ms", "webhook to platform, p99", BAD),
    ("platform_p50_ms", "webhook to platform, p50", BAD),
    ("webhook_p99_ms", "webhook's answer, p99", GOOD),
    ("webhook_p50_ms", "webhook's answer, p50", GOOD),
)


def curves(case: Mapping[str, Any]) -> str:
    """A curve for each figure over the rates; the floor and procrastinate beside them."""
    table, figures = case["tables"], case["figures"]
    rates = [float(name.removesuffix("/s")) for name in table]
    decades = math.ceil(math.log10(max(its[name] for its in table.values() for name, _, _ in CURVES)))
    end = WIDE - RIGHT

    def x(rate: float) -> float:
        return EDGE + (end - EDGE) * math.log(rate / rates[0]) / math.log(rates[-1] / rates[0])

    def y(milliseconds: float) -> float:
        return HIGH - EDGE - (HIGH - 2 * EDGE) * math.log10(max(1.0, milliseconds)) / decades

    def level(milliseconds: float, colour: str) -> str:
        at = y(milliseconds)
        return f'<line x1="{EDGE}" x2="{end}" y1="{at:.1f}" y2="{at:.1f}" stroke="{colour}"/>'

    def text(at_x: float, at_y: float, words: str, more: str = "") -> str:
        return f'<text x="{at_x:.1f}" y="{at_y + 4:.1f}" {more}>{escape(words)}</text>'

    body = [text(10, 20, "milliseconds by messages a second", 'font-weight="bold"')]
    for step in (10**decade for decade in range(decades + 1)):
        body += [level(step, "#ddd"), text(EDGE - 8, y(step), f"{step:,}", 'text-anchor="end"')]
    body += [text(x(rate), HIGH - EDGE + 18, f"{rate:g}", 'text-anchor="middle"') for rate in rates]
    labels = [(y(figures["floor_all_at_100_ms"]), "the floor", "black")]
    for name, words, colour in CURVES:
        values = [its[name] for its in table.values()]
        points = " ".join(f"{x(rate):.1f},{y(value):.1f}" for rate, value in zip(rates, values, strict=True))
        dashes = 'stroke-dasharray="5 4"' if "p99" in name else ""
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" {dashes}/>')
        labels.append((y(values[-1]), words, colour))
    body.append(level(figures["floor_all_at_100_ms"], "black"))
    body += [text(end + 8, at, words, f'fill="{colour}"') for at, words, colour in apart(labels)]
    for share in ("p50", "p99"):
        at = y(figures[f"procrastinate_{share}_ms"])
        body.append(f'<circle cx="{x(100):.1f}" cy="{at:.1f}" r="4" fill="{PLAIN}"/>')
        body.append(text(x(100) + 8, at, f"procrastinate, {share}", f'fill="{PLAIN}"'))
    return svg(WIDE, HIGH, body)


def apart(labels: Sequence[tuple[float, str, str]]) -> Iterator[tuple[float, str, str]]:
    """Yield labels from above, each at its height or so far below that it does not touch the one before."""
    free = 0.0
    for at, words, colour in sorted(labels):
        yield max(at, free), words, colour
        free = max(at, free) + 16


def svg(width: float, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body) + "\n</svg>\n"
    )  # fmt: skip
