"""The report's two charts as SVG: error per layer, and accuracy against speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

GRAPH_COLOURS = {"vision": "#3b6fb6", "language": "#8a5fb0", "backbone": "#2f8f83", "grounder": "#c2702d"}
INK, QUIET, LINE = "#1c1c1e", "#6b6b70", "#e3e3e6"
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


@dataclass(frozen=True)
class Bar:
    """One layer.

    Attributes:
        label: its name.
        graph: which it belongs to.
        value: its error.
        kept: whether it stayed in higher precision; drawn hollow.
    """

    label: str
    graph: str
    value: float
    kept: bool


@dataclass(frozen=True)
class Point:
    """One bundle: seconds per clip, a score with its interval, and whether it is the one that was asked for."""

    label: str
    seconds: float
    score: float
    low: float
    high: float
    is_result: bool


def bar_chart(bars: Sequence[Bar], unit: str) -> str:
    """Horizontal bars over a logarithmic axis, in the given order."""
    shown = [bar for bar in bars if bar.value > 0]
    if not shown:
        return ""
    low = math.floor(math.log10(min(bar.value for bar in shown)))
    high = max(math.ceil(math.log10(max(bar.value for bar in shown))), low + 1)
    left, width, step = 330, 560, 17

    def across(value: float) -> float:
        return round(left + width * (math.log10(value) - low) / (high - low), 1)

    parts = []
    height = step * len(bars) + 34
    for power in range(low, high + 1):
        x = across(10.0**power)
        parts.append(f'<line x1="{x}" x2="{x}" y1="4" y2="{height - 26}" stroke="{LINE}"/>')
        parts.append(_text(x, height - 10, f"10{_superscript(power)}", "middle", QUIET))
    for row, bar in enumerate(bars):
        top, colour = 6 + row * step, GRAPH_COLOURS.get(bar.graph, INK)
        parts.append(_text(left - 8, top + 10, bar.label, "end", INK))
        if bar.value > 0:
            fill = f'fill="white" stroke="{colour}"' if bar.kept else f'fill="{colour}"'
            end = max(across(bar.value) - left, 1.5)
            title = f"<title>{escape(bar.label)}: {bar.value:.3g} {escape(unit)}</title>"
            parts.append(f'<rect x="{left}" y="{top}" width="{end:.1f}" height="11" {fill}>{title}</rect>')
    return _svg(left + width + 30, height, parts, f"error per layer, {unit}")


def scatter(points: Sequence[Point], across_label: str, up_label: str) -> str:
    """Accuracy upwards, seconds across; whiskers are the intervals."""
    left, top, width, height = 64, 14, 700, 300
    most = max(point.seconds for point in points) * 1.18
    low, high = min(point.low for point in points), max(point.high for point in points)
    spread = max(high - low, 0.01)
    low, high = max(low - 0.08 * spread, 0), min(high + 0.08 * spread, 1)

    def place(seconds: float, score: float) -> tuple[float, float]:
        return round(left + width * seconds / most, 1), round(top + height * (high - score) / (high - low), 1)

    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{LINE}"/>']
    for tick in range(5):
        x, y = left + width * tick / 4, top + height * tick / 4
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="{LINE}"/>')
        parts.append(_text(left - 8, y + 4, f"{high - (high - low) * tick / 4:.3f}", "end", QUIET))
        parts.append(_text(x, top + height + 18, f"{most * tick / 4 * 1000:.0f}", "middle", QUIET))
    for rank, point in enumerate(sorted(points, key=lambda point: point.seconds)):
        colour = "#b3261e" if point.is_result else "#3b6fb6"
        (x, y), (_, upper), (_, lower) = (place(point.seconds, value) for value in (point.score, point.high, point.low))
        parts.append(f'<line x1="{x}" x2="{x}" y1="{upper}" y2="{lower}" stroke="{colour}" stroke-opacity=".45"/>')
        parts.append(f'<circle cx="{x}" cy="{y}" r="4.5" fill="{colour}"/>')
        # Above and below in turns: neighbours often lie close together.
        parts.append(_text(x + 8, y - 6 if rank % 2 else y + 15, point.label, "start", INK))
    parts.append(_text(left + width / 2, top + height + 38, across_label, "middle", QUIET))
    parts.append(_text(left, top - 3, up_label, "start", QUIET))
    return _svg(left + width + 30, top + height + 46, parts, f"{up_label} against {across_label}")


def _text(x: float, y: float, words: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {_FONT}>{escape(words)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
